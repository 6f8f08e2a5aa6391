#include "formats/types/read_tensor.h"

#include "formats/base/error.h"

namespace quern {

void read_tensor(const InputFile& file, const TensorInfo& tensor, uint64_t first_byte, std::span<std::byte> out) {
  QUERN_CHECK(first_byte <= tensor.size_bytes && out.size() <= tensor.size_bytes - first_byte);
  try {
    file.read_at(tensor.file_offset + first_byte, out);
  } catch (Error& e) {
    e.tensor(tensor.name);
    throw;
  }
}

}  // namespace quern
