#pragma once

#include <string>
#include <vector>

namespace quern {

// SHA-256 of a file and of its pieces of kPieceBytes.
struct FileSums {
  std::string sha256;
  std::vector<std::string> pieces_sha256;
};

// SHA-256 of a plane of a tensor and, when that is stacked, of the plane of each slice.
struct PlaneSums {
  std::string sha256;
  std::vector<std::string> slices;  // empty unless stacked
};

struct TensorSums {
  std::vector<PlaneSums> planes;
};

// What writing an output leaves to be recorded.
struct FinishedOutput {
  std::vector<FileSums> files;
  std::vector<TensorSums> tensors;
};

}  // namespace quern
