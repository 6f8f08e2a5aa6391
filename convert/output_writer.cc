#include "convert/output_writer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "formats/base/checked.h"
#include "formats/gguf.h"

namespace quern {
namespace {

// Data between two syncs: little enough that a crash loses seconds, much enough that waiting for the disk does not show.
constexpr uint64_t kSyncBytes = uint64_t{256} << 20;

std::string journal_header(const PlannedOutput& output, const std::string& id) {
  return "{\"schema\": \"quern.journal/1\", \"plan\": \"" + id + "\", \"mix\": \"" + output.mix +
         "\", \"files\": " + std::to_string(output.files.size()) + ", \"tensor_bytes\": " + std::to_string(output.tensor_bytes) + "}";
}

}  // namespace

void FileHasher::update(std::span<const std::byte> bytes) {
  file_hash_.update(bytes);
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

OutputWriter::OutputWriter(const Plan& plan, size_t output, const std::string& id)
    : plan_(plan), output_(plan.outputs[output]), stream_(plan, output_, TensorStream::Cut::kTensors) {
  std::filesystem::create_directories(plan.folder / output_.folder);
  open_file();
  journal_.emplace(plan.folder / (relative_name(output_, 0) + ".part.journal"), journal_header(output_, id));
  close_finished_files();
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
  files_.back()->write_at(position_, bytes);
  hash_.update(bytes);
  position_ += bytes.size();
  unsynced_bytes_ += bytes.size();
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
    unsynced_bytes_ = 0;
    sums_.push_back(hash_.finish());
    if (files_.size() < output_.files.size()) open_file();
  }
}

void OutputWriter::chunk_done(int64_t n_chunks) {
  if (unsynced_bytes_ < kSyncBytes) return;
  files_.back()->sync();
  unsynced_bytes_ = 0;
  journal_->record(n_chunks, tensor_bytes_);
}

const std::vector<FileSums>& OutputWriter::finish() {
  QUERN_CHECK(stream_.complete() && sums_.size() == output_.files.size());
  return sums_;
}

void OutputWriter::commit() {
  for (const std::unique_ptr<OutputFile>& file : files_) file->commit();
}

TensorHasher::TensorHasher(const Plan& plan, size_t output)
    : plan_(plan), stream_(plan, plan.outputs[output], TensorStream::Cut::kSlices), sums_(plan.tensors.size()) {}

void TensorHasher::append(std::span<const std::byte> bytes) {
  stream_.advance(bytes, [this](const TensorStream::Piece& piece) {
    const bool stacked = plan_.tensors[piece.tensor].n_slices > 1;
    TensorSums& sums = sums_[piece.tensor];
    tensor_hash_.update(piece.bytes);
    if (stacked) slice_hash_.update(piece.bytes);
    if (stacked && piece.ends_unit) sums.slices.push_back(slice_hash_.finish_hex());
    if (piece.ends_tensor) sums.sha256 = tensor_hash_.finish_hex();
  });
}

std::vector<TensorSums> TensorHasher::finish() {
  QUERN_CHECK(stream_.complete());
  return std::move(sums_);
}

}  // namespace quern
