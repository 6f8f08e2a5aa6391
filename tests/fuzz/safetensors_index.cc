#include "formats/base/error.h"
#include "formats/safetensors.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const quern::safetensors::Index index = quern::safetensors::parse_index(quern::test::input_bytes(data, size));
    for (const auto& entry : index.entries) QUERN_CHECK(entry.file < index.files.size());
  } catch (const quern::Error& e) {
    if (e.kind() == quern::ErrorKind::kInternal) throw;
  }
  return 0;
}
