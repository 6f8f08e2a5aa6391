#include "formats/statistics/imatrix.h"

#include "tests/fuzz/fuzz.h"

// Both forms: the magic bytes decide. What is accepted can be merged with itself.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  quern::test::accept_errors([&] {
    const quern::Imatrix parts[] = {quern::parse_imatrix(quern::test::input_bytes(data, size))};
    const quern::Imatrix merged = quern::merge_imatrices(parts);
    QUERN_CHECK(merged.entries.size() == parts[0].entries.size());
  });
  return 0;
}
