#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/base/file.h"
#include "formats/types/tensor.h"

namespace quern {

// Fills `out` with the bytes of a tensor that `file` holds, from its byte first_byte on. Errors name file, offset and tensor.
void read_tensor(const InputFile& file, const TensorInfo& tensor, uint64_t first_byte, std::span<std::byte> out);

}  // namespace quern
