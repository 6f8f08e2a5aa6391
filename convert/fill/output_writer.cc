#include "convert/fill/output_writer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "convert/plan/layout.h"
#include "formats/base/parallel.h"

// A file has a sum over all its bytes, and a sum takes its bytes in order. So the files of an output are written in the order of the plan,
// from a stream of blocks that comes chunk after chunk, and nothing is read back. Where the container cuts blocks into planes, a chunk has
// a run of each plane. The run of the first plane is next in the file and goes into file and sum. Those of the later planes go to their
// places in the file at once and are kept in memory beside: into the sum they can go only when the planes before them are complete. The
// later planes are the small ones, and plan_memory counts them.
//
// A mark is a sum of the file so far and one of each later plane so far. Going on from it reads both again, which gives back the states of
// all sums and the planes that are kept.

namespace quern {
namespace {

constexpr uint64_t kReadBytes = 4u << 20;

// Does two things with some bytes, side by side unless they are few. A sum runs at one or two GB/s and cannot be shared between threads
// itself, so what a byte goes through on its way into a file is: with many cores this is what limits an output.
template <typename First, typename Second>
void both(size_t n_bytes, First first, Second second) {
  constexpr size_t kFewBytes = 64u << 10;
  if (n_bytes < kFewBytes) {
    first();
    second();
  } else {
    side_by_side({first, second});
  }
}

Error damaged(const std::filesystem::path& path, const std::string& what) {
  return std::move(Error(ErrorKind::kFormat, what + " (a fault of the disk?); --force begins again").file(path.string()));
}

}  // namespace

void FileHasher::update(std::span<const std::byte> bytes) {
  both(
      bytes.size(), [&] { file_hash_.update(bytes); }, [&] { update_pieces(bytes); });
}

void FileHasher::update_pieces(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto part = bytes.first(static_cast<size_t>(std::min<uint64_t>(bytes.size(), kPieceBytes - piece_bytes_)));
    piece_hash_.update(part);
    piece_bytes_ = (piece_bytes_ + part.size()) % kPieceBytes;
    if (piece_bytes_ == 0) pieces_.push_back(piece_hash_.finish_hex());
    bytes = bytes.subspan(part.size());
  }
}

FileSums FileHasher::finish() {
  if (piece_bytes_ != 0) pieces_.push_back(piece_hash_.finish_hex());
  piece_bytes_ = 0;
  return {file_hash_.finish_hex(), std::exchange(pieces_, {})};
}

OutputWriter::OutputWriter(const Plan& plan, size_t output) : plan_(plan), output_(plan.outputs[output]), stream_(output_) {
  make_folder(plan.folder / output_.folder);
  open_file();
  close_finished_files();
}

OutputWriter::OutputWriter(const Plan& plan, size_t output, const OutputMarks& marks, TensorHasher& hasher, Progress& progress)
    : plan_(plan), output_(plan.outputs[output]), stream_(output_) {
  for (const auto& [file, mark] : marks) {
    if (file != files_.size() || sums_.size() != files_.size()) throw Error(ErrorKind::kFormat, "the journal leaves files out");
    go_on(mark, hasher, progress);
  }
  if (files_.empty()) throw Error(ErrorKind::kFormat, "the journal leaves files out");
  if (sums_.size() < files_.size() || files_.size() == output_.files.size()) return;
  open_file();
  close_finished_files();
}

void OutputWriter::go_on(const FileMark& mark, TensorHasher& hasher, Progress& progress) {
  const PlannedFile& file = output_.files[files_.size()];
  const std::filesystem::path path = plan_.folder / relative_name(output_, files_.size()), part = part_path(path);
  const bool renamed = mark.size_bytes == file.size_bytes && !std::filesystem::exists(part);
  const InputFile begun(renamed ? path : part);
  if (begun.size_bytes() < mark.size_bytes) {
    throw damaged(begun.path(),
                  "has " + std::to_string(begun.size_bytes()) + " bytes, its journal says " + std::to_string(mark.size_bytes));
  }
  uint64_t kept = mark.size_bytes;
  for (const PlaneMark& plane : mark.planes) kept = std::max(kept, plane.file_offset + plane.size_bytes);
  const auto overwrite = plan_.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse;
  files_.push_back(renamed ? nullptr : std::make_unique<OutputFile>(path, overwrite, kept));
  if (!renamed) files_.back()->keep_part(true);
  tensors_left_ = file.n_tensors;
  read_again(begun, mark, hasher, progress);
  if (hash_.sha256() != mark.sha256) throw damaged(begun.path(), "does not hold what its journal says");
  if (mark.size_bytes == file.size_bytes) sums_.push_back(hash_.finish());
}

// The last file from its start: everything into its hash, the data of tensors into theirs.
void OutputWriter::read_again(const InputFile& file, const FileMark& mark, TensorHasher& hasher, Progress& progress) {
  std::vector<std::byte> buffer(kReadBytes);
  position_ = 0;
  const auto read_up_to = [&](uint64_t end, const auto& visit) {
    for (end = std::min(end, mark.size_bytes); position_ < end;) {
      throw_if_interrupted();
      const auto piece = std::span(buffer).first(static_cast<size_t>(std::min<uint64_t>(end - position_, buffer.size())));
      file.read_at(position_, piece);
      hash_.update(piece);
      visit(piece);
      position_ += piece.size();
      progress.advance(piece.size());
    }
  };
  const auto no_data = [](std::span<const std::byte>) {};
  const PlannedFile& planned = output_.files[files_.size() - 1];
  read_up_to(planned.data_offset, no_data);
  for (size_t t = planned.first_tensor; t < planned.first_tensor + planned.n_tensors && position_ < mark.size_bytes; ++t) {
    const Placement& placement = output_.tensors[t];
    const PlacedPlane& first = placement.planes.front();
    for (size_t p = 0; p < placement.planes.size(); ++p) {
      const PlacedPlane& plane = placement.planes[p];
      read_up_to(plane.file_offset, no_data);
      read_up_to(plane.file_offset + plane.size_bytes, [&](std::span<const std::byte> bytes) { hasher.append_plane(t, p, bytes); });
    }
    read_up_to(end_of(t), no_data);
    const bool complete = position_ == end_of(t);
    if (!complete && position_ >= first.file_offset + first.size_bytes) throw damaged(file.path(), "ends between tensors");
    const uint64_t block_bytes = output_.container->planes(placement.type).front().block_bytes;
    const uint64_t n_blocks = complete ? first.size_bytes / block_bytes : (position_ - first.file_offset) / block_bytes;
    const uint64_t n_bytes = n_blocks * static_cast<uint64_t>(traits(placement.type).block_bytes);
    if (complete) --tensors_left_;
    if (!complete) read_later_planes(file, mark, t, n_blocks, hasher);
    stream_.skip(n_bytes);
    hasher.skip(n_bytes);
    tensor_bytes_ += n_bytes;
  }
}

// Of a tensor that was begun: its later planes up to a block.
void OutputWriter::read_later_planes(const InputFile& file, const FileMark& mark, size_t tensor, uint64_t n_blocks, TensorHasher& hasher) {
  const Placement& placement = output_.tensors[tensor];
  const std::vector<Plane> planes = output_.container->planes(placement.type);
  if (mark.planes.size() + 1 != planes.size()) throw damaged(file.path(), "has another number of planes than its journal says");
  for (size_t p = 1; p < planes.size(); ++p) {
    const PlaneMark& plane = mark.planes[p - 1];
    if (plane.file_offset != placement.planes[p].file_offset || plane.size_bytes != n_blocks * planes[p].block_bytes) {
      throw damaged(file.path(), "has other planes than its journal says");
    }
    for (uint64_t done = 0; done < plane.size_bytes; done += buffer_.size()) {
      throw_if_interrupted();
      buffer_.resize(static_cast<size_t>(std::min<uint64_t>(plane.size_bytes - done, kReadBytes)));
      file.read_at(plane.file_offset + done, buffer_);
      keep_for_later(tensor, p, buffer_);
      hasher.append_plane(tensor, p, buffer_);
    }
    if (later_[p - 1].hash.current_hex() != plane.sha256) throw damaged(file.path(), "does not hold what its journal says");
  }
}

void OutputWriter::open_file() {
  const PlannedFile& file = output_.files[files_.size()];
  const auto overwrite = plan_.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse;
  const std::vector<std::byte> header = file_header(plan_, output_, files_.size());
  QUERN_CHECK(header.size() == file.data_offset);
  files_.push_back(std::make_unique<OutputFile>(plan_.folder / relative_name(output_, files_.size()), overwrite));
  position_ = 0;
  tensors_left_ = file.n_tensors;
  write(header);
}

void OutputWriter::write(std::span<const std::byte> bytes) {
  both(
      bytes.size(), [&] { files_.back()->write_at(position_, bytes); }, [&] { hash_.update(bytes); });
  position_ += bytes.size();
}

void OutputWriter::write_zeros_up_to(uint64_t end) {
  static constexpr std::array<std::byte, 256> kZeros{};
  while (position_ < end) write(std::span(kZeros).first(static_cast<size_t>(std::min<uint64_t>(end - position_, kZeros.size()))));
}

void OutputWriter::append(std::span<const std::byte> blocks) {
  stream_.advance(blocks, [this](const TensorStream::Piece& piece) { append(piece); });
  tensor_bytes_ += blocks.size();
}

void OutputWriter::append(const TensorStream::Piece& piece) {
  const Placement& placement = output_.tensors[piece.tensor];
  const std::vector<Plane> planes = output_.container->planes(placement.type);
  const uint64_t n_before = piece.offset / static_cast<uint64_t>(traits(placement.type).block_bytes);
  QUERN_CHECK(position_ == placement.planes.front().file_offset + n_before * planes.front().block_bytes);
  for (size_t p = 0; p < planes.size(); ++p) {
    for_each_run(planes[p], placement.type, piece.bytes, buffer_, [&](std::span<const std::byte> run) {
      if (p == 0) return write(run);
      keep_for_later(piece.tensor, p, run);
      const uint64_t end = placement.planes[p].file_offset + later_[p - 1].bytes.size();
      files_.back()->write_at(end - run.size(), run);
    });
  }
  if (piece.ends_tensor) end_tensor(piece.tensor);
}

void OutputWriter::keep_for_later(size_t tensor, size_t plane, std::span<const std::byte> bytes) {
  const std::vector<PlacedPlane>& planes = output_.tensors[tensor].planes;
  if (later_.empty()) later_.resize(planes.size() - 1);
  LaterPlane& later = later_[plane - 1];
  if (later.bytes.empty()) later.bytes.reserve(static_cast<size_t>(planes[plane].size_bytes));
  later.bytes.insert(later.bytes.end(), bytes.begin(), bytes.end());
  later.hash.update(bytes);
}

void OutputWriter::end_tensor(size_t tensor) {
  const std::vector<PlacedPlane>& planes = output_.tensors[tensor].planes;
  for (size_t p = 1; p < planes.size(); ++p) {
    write_zeros_up_to(planes[p].file_offset);
    hash_.update(later_[p - 1].bytes);
    position_ += later_[p - 1].bytes.size();
  }
  later_.clear();
  write_zeros_up_to(end_of(tensor));
  --tensors_left_;
  close_finished_files();
}

// Where in its file that begins what follows a tensor.
uint64_t OutputWriter::end_of(size_t tensor) const {
  const PlannedFile& file = output_.files[output_.tensors[tensor].file];
  const bool last = tensor + 1 == file.first_tensor + file.n_tensors;
  return last ? file.size_bytes : output_.tensors[tensor + 1].planes.front().file_offset;
}

// A file without tensors is finished with its header.
void OutputWriter::close_finished_files() {
  while (tensors_left_ == 0 && sums_.size() < files_.size()) {
    QUERN_CHECK(position_ == output_.files[files_.size() - 1].size_bytes);
    files_.back()->sync();
    sums_.push_back(hash_.finish());
    changed_[files_.size() - 1] = {position_, sums_.back().sha256};
    if (files_.size() < output_.files.size()) open_file();
  }
}

void OutputWriter::mark() {
  if (sums_.size() < files_.size()) {
    files_.back()->sync();
    changed_[files_.size() - 1] = mark_of_file();
  }
  sync_folder(plan_.folder / output_.folder);
  const std::lock_guard lock(marks_mutex_);
  marks_.push_back(std::exchange(changed_, {}));
}

FileMark OutputWriter::mark_of_file() const {
  FileMark mark{position_, hash_.sha256()};
  const PlannedFile& file = output_.files[files_.size() - 1];
  for (size_t p = 0; p < later_.size(); ++p) {
    const Placement& placement = output_.tensors[file.first_tensor + file.n_tensors - tensors_left_];
    mark.planes.push_back({placement.planes[p + 1].file_offset, later_[p].bytes.size(), later_[p].hash.current_hex()});
  }
  return mark;
}

OutputMarks OutputWriter::take_mark() {
  const std::lock_guard lock(marks_mutex_);
  QUERN_CHECK(!marks_.empty());
  OutputMarks mark = std::move(marks_.front());
  marks_.pop_front();
  return mark;
}

const std::vector<FileSums>& OutputWriter::finish() {
  QUERN_CHECK(stream_.complete() && sums_.size() == output_.files.size());
  return sums_;
}

void OutputWriter::commit() {
  for (const std::unique_ptr<OutputFile>& file : files_) {
    if (file) file->commit();
  }
}

void OutputWriter::keep(bool keep) {
  for (const std::unique_ptr<OutputFile>& file : files_) {
    if (file) file->keep_part(keep);
  }
}

TensorHasher::TensorHasher(const Plan& plan, size_t output)
    : plan_(plan), output_(plan.outputs[output]), stream_(output_), sums_(plan.tensors.size()) {
  for (size_t t = 0; t < sums_.size(); ++t) sums_[t].planes.resize(output_.tensors[t].planes.size());
}

void TensorHasher::append(std::span<const std::byte> blocks) {
  stream_.advance(blocks, [this](const TensorStream::Piece& piece) {
    const DType type = output_.tensors[piece.tensor].type;
    const std::vector<Plane> planes = output_.container->planes(type);
    for (size_t p = 0; p < planes.size(); ++p) {
      for_each_run(planes[p], type, piece.bytes, buffer_, [&](std::span<const std::byte> run) { append_plane(piece.tensor, p, run); });
    }
  });
}

void TensorHasher::append_plane(size_t tensor, size_t plane, std::span<const std::byte> bytes) {
  if (planes_.size() <= plane) planes_.resize(plane + 1);
  PlaneHash& hash = planes_[plane];
  PlaneSums& sums = sums_[tensor].planes[plane];
  const int64_t n_slices = plan_.tensors[tensor].n_slices;
  const uint64_t size = output_.tensors[tensor].planes[plane].size_bytes, slice_bytes = size / static_cast<uint64_t>(n_slices);
  while (!bytes.empty()) {
    const uint64_t left = slice_bytes - hash.n_bytes % slice_bytes;
    const auto part = bytes.first(static_cast<size_t>(std::min<uint64_t>(left, bytes.size())));
    if (n_slices > 1) {
      both(
          part.size(), [&] { hash.whole.update(part); }, [&] { hash.slice.update(part); });
    } else {
      hash.whole.update(part);
    }
    hash.n_bytes += part.size();
    if (n_slices > 1 && part.size() == left) sums.slices.push_back(hash.slice.finish_hex());
    bytes = bytes.subspan(part.size());
  }
  if (hash.n_bytes < size) return;
  sums.sha256 = hash.whole.finish_hex();
  hash.n_bytes = 0;
}

std::vector<TensorSums> TensorHasher::finish() {
  QUERN_CHECK(stream_.complete());
  return std::move(sums_);
}

}  // namespace quern
