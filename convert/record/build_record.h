#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "formats/containers/container.h"
#include "formats/gguf/metadata.h"
#include "formats/types/dtype.h"
#include "formats/types/tensor.h"

namespace quern {

// What is known of a build, the files of one output: enough to find any damage and to name it. "quern.tensors/1" as JSON
// (docs/formats/manifest.md); the manifest of a published folder holds one for each build.

inline constexpr uint64_t kMebibyte = uint64_t{1} << 20;
// SHA-256 of this much of a file, so that damage has a place.
inline constexpr uint64_t kPieceBytes = kMebibyte;

struct FileRecord {
  std::string name;  // relative to the folder of the record, at most one folder deep
  uint64_t size_bytes = 0;
  std::string sha256;
  std::vector<std::string> pieces_sha256;  // per kPieceBytes, the last one may be shorter
};

// How near to the source.
struct ErrorRecord {
  bool exact = false;         // every weight has the bits of the decoded source
  double squared_error = 0;   // sum over the weights
  double relative_error = 0;  // square root of its share of the sum of squares
  int64_t n_cut = 0;          // weights beyond the range of binary16 that were cut
  double largest_cut = 0;     // of the source, by magnitude
};

struct SliceRecord {
  std::string sha256;
  ErrorRecord error;
};

// One of the arrays that a container makes of a tensor.
struct PlaneRecord {
  uint64_t offset = 0;  // in its file
  uint64_t size_bytes = 0;
  std::string sha256;
  std::vector<std::string> slices_sha256;  // of stacked tensors, in order
};

struct TensorRecord {
  std::string name;
  DType type = DType::F32;
  Shape shape;
  size_t file = 0;  // position in BuildRecord::files
  // Offset and sums are those of the first plane, which most containers have alone.
  uint64_t offset = 0;
  uint64_t size_bytes = 0;  // of all planes
  std::string sha256;
  std::optional<ErrorRecord> error;      // empty for tables of integers
  std::vector<SliceRecord> slices;       // of stacked tensors, in order; otherwise empty
  std::vector<PlaneRecord> planes = {};  // those behind the first
};
// All planes of a tensor, in the order of the file.
std::vector<PlaneRecord> planes_of(const TensorRecord& tensor);

struct BuildRecord {
  const Container* container = &default_container();
  std::string quern_version;
  std::string recipe;
  std::string label;  // "Q4_K_M", what the files are named after
  bool lossless = false;
  bool mtp = false;
  std::optional<ErrorRecord> error;   // over all float tensors
  Metadata settings;                  // the quern.* keys of the build: recipe, encoder revisions, statistics
  std::vector<FileRecord> files;      // those with tensors in order, then side files
  ValueSums keys;                     // of the metadata values of the first file
  std::vector<TensorRecord> tensors;  // in file order
};

}  // namespace quern
