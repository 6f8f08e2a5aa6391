#include "convert/record/build_record.h"

namespace quern {

std::vector<PlaneRecord> planes_of(const TensorRecord& tensor) {
  uint64_t first_bytes = tensor.size_bytes;
  for (const PlaneRecord& plane : tensor.planes) first_bytes -= plane.size_bytes;
  std::vector<PlaneRecord> planes = {{tensor.offset, first_bytes, tensor.sha256, {}}};
  for (const SliceRecord& slice : tensor.slices) planes.front().slices_sha256.push_back(slice.sha256);
  planes.insert(planes.end(), tensor.planes.begin(), tensor.planes.end());
  return planes;
}

}  // namespace quern
