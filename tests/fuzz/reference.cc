#include "tests/fuzz/fuzz.h"
#include "verify/drift/reference_file.h"

// All rows are read and compared with logits that say nothing.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const quern::test::InputAsFile file(data, size);
  quern::test::accept_errors([&] {
    quern::ReferenceFile reference(file.path());
    constexpr int64_t kMostVocab = 4096, kMostChunks = 8;
    if (reference.n_vocab() > kMostVocab) return;
    const std::vector<float> logits(static_cast<size_t>(reference.n_vocab()));
    for (int64_t chunk = 0; chunk < std::min(std::ssize(reference.chunks()), kMostChunks); ++chunk) {
      const int64_t n_ctx = std::ssize(reference.chunks()[static_cast<size_t>(chunk)].tokens);
      reference.begin_rows(chunk, n_ctx / 2, 1);
      static_cast<void>(reference.compare(chunk, n_ctx / 2, logits));
    }
  });
  return 0;
}
