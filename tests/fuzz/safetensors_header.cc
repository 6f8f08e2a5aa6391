#include "formats/safetensors/safetensors.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  quern::test::accept_errors([&] {
    const auto header = quern::safetensors::parse_header(quern::test::input_bytes(data, size), size);
    for (const quern::TensorInfo& tensor : header.tensors) QUERN_CHECK(tensor.file_offset + tensor.size_bytes <= size);
  });
  return 0;
}
