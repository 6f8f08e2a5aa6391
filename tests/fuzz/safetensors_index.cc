#include "formats/safetensors/safetensors.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  quern::test::accept_errors([&] {
    const quern::safetensors::Index index = quern::safetensors::parse_index(quern::test::input_bytes(data, size));
    for (const auto& entry : index.entries) QUERN_CHECK(entry.file < index.files.size());
  });
  return 0;
}
