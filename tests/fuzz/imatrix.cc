#include "formats/imatrix.h"

#include "formats/base/error.h"
#include "tests/fuzz/fuzz.h"

// Both forms: the magic bytes decide. What is accepted can be merged with itself.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const quern::Imatrix parts[] = {quern::parse_imatrix(quern::test::input_bytes(data, size))};
    const quern::Imatrix merged = quern::merge_imatrices(parts);
    QUERN_CHECK(merged.entries.size() == parts[0].entries.size());
  } catch (const quern::Error& e) {
    if (e.kind() == quern::ErrorKind::kInternal) throw;
  }
  return 0;
}
