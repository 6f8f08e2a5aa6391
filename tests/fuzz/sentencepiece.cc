#include "formats/tokenizer/sentencepiece.h"

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  quern::test::accept_errors([&] {
    const quern::SentencePieceModel model = quern::parse_sentencepiece(quern::test::input_bytes(data, size));
    for (const auto& piece : model.pieces) QUERN_CHECK(!piece.text.empty() && piece.type >= 1 && piece.type <= 6);
  });
  return 0;
}
