#include "convert/fill/output_writer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "convert/plan/layout.h"
#include "formats/base/checked.h"
#include "formats/base/parallel.h"
#include "formats/gguf/gguf.h"

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

OutputWriter::OutputWriter(const Plan& plan, size_t output)
    : plan_(plan), output_(plan.outputs[output]), stream_(plan, output_, TensorStream::Cut::kTensors) {
  make_folder(plan.folder / output_.folder);
  open_file();
  close_finished_files();
}

OutputWriter::OutputWriter(const Plan& plan, size_t output, const OutputMarks& marks, TensorHasher& hasher, Progress& progress)
    : plan_(plan), output_(plan.outputs[output]), stream_(plan, output_, TensorStream::Cut::kTensors) {
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
  const auto overwrite = plan_.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse;
  files_.push_back(renamed ? nullptr : std::make_unique<OutputFile>(path, overwrite, mark.size_bytes));
  if (!renamed) files_.back()->keep_part(true);
  tensors_left_ = file.n_tensors;
  read_again(begun, mark.size_bytes, hasher, progress);
  if (hash_.sha256() != mark.sha256) throw damaged(begun.path(), "does not hold what its journal says");
  if (mark.size_bytes == file.size_bytes) sums_.push_back(hash_.finish());
}

// The last file from its start: everything into its hash, the data of tensors into theirs.
void OutputWriter::read_again(const InputFile& file, uint64_t size_bytes, TensorHasher& hasher, Progress& progress) {
  std::vector<std::byte> buffer(kReadBytes);
  position_ = 0;
  const auto read_up_to = [&](uint64_t end, bool is_data) {
    for (end = std::min(end, size_bytes); position_ < end;) {
      throw_if_interrupted();
      const auto piece = std::span(buffer).first(static_cast<size_t>(std::min<uint64_t>(end - position_, buffer.size())));
      file.read_at(position_, piece);
      hash_.update(piece);
      if (is_data) {
        hasher.append(piece);
        stream_.advance(piece, [](const TensorStream::Piece&) {});
        tensor_bytes_ += piece.size();
      }
      position_ += piece.size();
      progress.advance(piece.size());
    }
  };
  const PlannedFile& planned = output_.files[files_.size() - 1];
  read_up_to(planned.data_offset, false);
  for (size_t t = planned.first_tensor; t < planned.first_tensor + planned.n_tensors; ++t) {
    const Placement& placement = output_.tensors[t];
    const uint64_t end = placement.file_offset + placement.size_bytes;
    read_up_to(end, true);
    read_up_to(align_up(end, gguf::kDefaultAlignment), false);
    if (position_ >= align_up(end, gguf::kDefaultAlignment)) --tensors_left_;
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

void OutputWriter::append(std::span<const std::byte> bytes) {
  stream_.advance(bytes, [this](const TensorStream::Piece& piece) {
    QUERN_CHECK(position_ == output_.tensors[piece.tensor].file_offset + piece.offset);
    write(piece.bytes);
    if (!piece.ends_tensor) return;
    static constexpr std::array<std::byte, gguf::kDefaultAlignment> kZeros{};
    write(std::span(kZeros).first(static_cast<size_t>(align_up(position_, gguf::kDefaultAlignment) - position_)));
    --tensors_left_;
    close_finished_files();
  });
  tensor_bytes_ += bytes.size();
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
    changed_[files_.size() - 1] = {position_, hash_.sha256()};
  }
  sync_folder(plan_.folder / output_.folder);
  const std::lock_guard lock(marks_mutex_);
  marks_.push_back(std::exchange(changed_, {}));
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
    : plan_(plan), stream_(plan, plan.outputs[output], TensorStream::Cut::kSlices), sums_(plan.tensors.size()) {}

void TensorHasher::append(std::span<const std::byte> bytes) {
  stream_.advance(bytes, [this](const TensorStream::Piece& piece) {
    const bool stacked = plan_.tensors[piece.tensor].n_slices > 1;
    TensorSums& sums = sums_[piece.tensor];
    if (stacked) {
      both(
          piece.bytes.size(), [&] { tensor_hash_.update(piece.bytes); }, [&] { slice_hash_.update(piece.bytes); });
    } else {
      tensor_hash_.update(piece.bytes);
    }
    if (stacked && piece.ends_unit) sums.slices.push_back(slice_hash_.finish_hex());
    if (piece.ends_tensor) sums.sha256 = tensor_hash_.finish_hex();
  });
}

std::vector<TensorSums> TensorHasher::finish() {
  QUERN_CHECK(stream_.complete());
  return std::move(sums_);
}

}  // namespace quern
