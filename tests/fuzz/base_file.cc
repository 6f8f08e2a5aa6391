#include "verify/drift/base_file.h"
#include "tests/fuzz/fuzz.h"

// All rows are read and compared with logits that say nothing.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const quern::test::InputAsFile file(data, size);
  quern::test::accept_errors([&] {
    quern::BaseFile base(file.path(), 0);
    const std::vector<float> logits(static_cast<size_t>(base.n_vocab()));
    for (int64_t chunk = 0; chunk < std::ssize(base.chunks()); ++chunk) {
      const int64_t n_ctx = std::ssize(base.chunks()[static_cast<size_t>(chunk)].tokens), first = n_ctx / 2;
      base.begin_rows(chunk, first, n_ctx - 1 - first);
      for (int64_t t = first; t < n_ctx - 1; ++t) static_cast<void>(base.compare(chunk, t, logits));
    }
  });
  return 0;
}
