#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/base/file.h"
#include "formats/base/progress.h"
#include "formats/types/dtype.h"

namespace quern {

// One reading of a file of a build: everything that its record can be compared with. Pieces are hashed on all threads; tensors and
// the file as a whole are hashed beside them, each on one.

// A tensor in the file, of n_slices equal slices.
struct ScanRange {
  uint64_t offset = 0;
  uint64_t size_bytes = 0;
  uint64_t n_slices = 1;
  DType type = DType::F32;
};

struct RangeScan {
  std::string sha256;                      // empty when the file ends before the range does
  std::vector<std::string> slices_sha256;  // of the complete slices, when there are several
  std::optional<uint64_t> nonfinite_at;    // offset in the file of the first block with a scale or value that is not finite
  bool zero = false;                       // every weight is zero; of a type that is no weights, every byte
};

struct FileScan {
  uint64_t size_bytes = 0;
  std::string sha256;
  std::vector<std::string> pieces_sha256;  // per kPieceBytes
  std::vector<RangeScan> ranges;           // one per ScanRange
};

// ranges: ascending, not overlapping. Advances progress by the bytes read; throws on an interrupt.
FileScan scan_file(const InputFile& file, std::span<const ScanRange> ranges, Progress& progress);

// SHA-256 of a whole file.
std::string hash_file(const std::filesystem::path& path, Progress& progress);

}  // namespace quern
