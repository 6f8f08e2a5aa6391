#include "verify/intact/file_scan.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>

#include "convert/record/build_record.h"
#include "formats/base/parallel.h"
#include "formats/base/sha256.h"
#include "formats/types/decode.h"

namespace quern {
namespace {

constexpr uint64_t kBatchPieces = 16;
constexpr uint64_t kBatchBytes = kBatchPieces * kPieceBytes;
constexpr uint64_t kLargestBlock = 256;  // bytes; what a block may reach over the end of a batch

// Whether whole blocks are nothing but zeros: all are like the first, and that one is zero.
bool are_zero(DType type, std::span<const std::byte> blocks) {
  const size_t n = static_cast<size_t>(traits(type).block_bytes);
  if (std::memcmp(blocks.data(), blocks.data() + n, blocks.size() - n) != 0) return false;
  const std::span<const std::byte> first = blocks.first(n);
  if (!has_decoder(type)) return std::ranges::all_of(first, [](std::byte byte) { return byte == std::byte{0}; });
  std::array<float, 256> weights{};
  const auto decoded = std::span(weights).first(static_cast<size_t>(traits(type).block_weights));
  decode_blocks(type, first, decoded);
  return std::ranges::all_of(decoded, [](float weight) { return weight == 0; });
}

class Scanner {
 public:
  Scanner(const InputFile& file, std::span<const ScanRange> ranges) : file_(file), ranges_(ranges) {
    result_.size_bytes = file.size_bytes();
    result_.pieces_sha256.resize(static_cast<size_t>((file.size_bytes() + kPieceBytes - 1) / kPieceBytes));
    result_.ranges.resize(ranges.size());
    for (RangeScan& range : result_.ranges) range.zero = true;
    buffer_.resize(static_cast<size_t>(std::min(file.size_bytes(), kBatchBytes + kLargestBlock)));
  }

  FileScan run(Progress& progress) {
    for (begin_ = 0; begin_ < result_.size_bytes; begin_ = end_) {
      throw_if_interrupted();
      end_ = std::min(result_.size_bytes, begin_ + kBatchBytes);
      const uint64_t n = std::min(result_.size_bytes, end_ + kLargestBlock) - begin_;
      file_.read_at(begin_, std::span(buffer_).first(static_cast<size_t>(n)));
      const int64_t n_pieces = static_cast<int64_t>((end_ - begin_ + kPieceBytes - 1) / kPieceBytes);
      parallel_for(n_pieces + 2, 1, [this](int64_t first, int64_t last) {
        for (int64_t task = first; task < last; ++task) run_task(task);
      });
      file_.done_with(begin_, end_ - begin_);
      progress.advance(end_ - begin_);
    }
    result_.sha256 = file_hash_.finish_hex();
    return std::move(result_);
  }

 private:
  std::span<const std::byte> bytes(uint64_t first, uint64_t last) const {
    return std::span(buffer_).subspan(static_cast<size_t>(first - begin_), static_cast<size_t>(last - first));
  }

  void run_task(int64_t task) {
    if (task == 0) return file_hash_.update(bytes(begin_, end_));
    if (task == 1) return hash_ranges();
    const uint64_t first = begin_ + static_cast<uint64_t>(task - 2) * kPieceBytes, last = std::min(end_, first + kPieceBytes);
    result_.pieces_sha256[static_cast<size_t>(first / kPieceBytes)] = sha256_hex(bytes(first, last));
    look_at_blocks(first, last);
  }

  void hash_ranges() {
    for (; range_ < ranges_.size() && ranges_[range_].offset < end_; ++range_) {
      const ScanRange& range = ranges_[range_];
      const uint64_t range_end = range.offset + range.size_bytes, slice_bytes = range.size_bytes / range.n_slices;
      for (uint64_t at = std::max(begin_, range.offset); at < std::min(end_, range_end);) {
        const uint64_t slice_end = range.offset + ((at - range.offset) / slice_bytes + 1) * slice_bytes, next = std::min(end_, slice_end);
        range_hash_.update(bytes(at, next));
        if (range.n_slices > 1) slice_hash_.update(bytes(at, next));
        if (range.n_slices > 1 && next == slice_end) result_.ranges[range_].slices_sha256.push_back(slice_hash_.finish_hex());
        at = next;
      }
      if (range_end > end_) return;  // goes on in the next batch
      result_.ranges[range_].sha256 = range_hash_.finish_hex();
    }
  }

  // Blocks that begin in [first, last).
  void look_at_blocks(uint64_t first, uint64_t last) {
    const auto begins_after = [](uint64_t offset, const ScanRange& range) { return offset < range.offset; };
    auto next = std::upper_bound(ranges_.begin(), ranges_.end(), first, begins_after);
    for (auto range = next == ranges_.begin() ? next : next - 1; range != ranges_.end() && range->offset < last; ++range) {
      const uint64_t block = static_cast<uint64_t>(traits(range->type).block_bytes);
      const auto up = [&](uint64_t at) {
        return at <= range->offset ? range->offset : range->offset + (at - range->offset + block - 1) / block * block;
      };
      const uint64_t end = std::min({range->offset + range->size_bytes, up(last), result_.size_bytes});
      const uint64_t begin = up(first);
      if (begin + block > end) continue;
      const std::span<const std::byte> blocks = bytes(begin, begin + (end - begin) / block * block);
      const int64_t bad = find_nonfinite_block(range->type, blocks);
      const bool zero = are_zero(range->type, blocks);
      const std::lock_guard lock(mutex_);
      RangeScan& found = result_.ranges[static_cast<size_t>(range - ranges_.begin())];
      found.zero = found.zero && zero;
      if (bad < 0) continue;
      const uint64_t at = begin + static_cast<uint64_t>(bad) * block;
      found.nonfinite_at = std::min(found.nonfinite_at.value_or(at), at);
    }
  }

  const InputFile& file_;
  std::span<const ScanRange> ranges_;
  std::vector<std::byte> buffer_;
  uint64_t begin_ = 0, end_ = 0;  // the batch
  size_t range_ = 0;              // the first that is not hashed to its end
  Sha256 file_hash_, range_hash_, slice_hash_;
  std::mutex mutex_;
  FileScan result_;
};

}  // namespace

FileScan scan_file(const InputFile& file, std::span<const ScanRange> ranges, Progress& progress) {
  return Scanner(file, ranges).run(progress);
}

std::string hash_file(const std::filesystem::path& path, Progress& progress) {
  const InputFile file(path);
  std::vector<std::byte> buffer(static_cast<size_t>(std::min(file.size_bytes(), kBatchBytes)));
  Sha256 hash;
  for (uint64_t at = 0; at < file.size_bytes();) {
    throw_if_interrupted();
    const auto piece = std::span(buffer).first(static_cast<size_t>(std::min<uint64_t>(buffer.size(), file.size_bytes() - at)));
    file.read_at(at, piece);
    hash.update(piece);
    file.done_with(at, piece.size());
    progress.advance(piece.size());
    at += piece.size();
  }
  return hash.finish_hex();
}

}  // namespace quern
