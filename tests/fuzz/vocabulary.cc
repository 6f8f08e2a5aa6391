#include "formats/arch/key_reader.h"
#include "formats/gguf/gguf.h"
#include "runtime/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"

// The keys of a GGUF file as a tokenizer and as the parameters of a model.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::optional<quern::gguf::Header> header;
  quern::test::accept_errors([&] { header = quern::gguf::parse_header(quern::test::input_bytes(data, size), size); });
  if (!header) return 0;
  quern::test::accept_errors([&] {
    const quern::Tokenizer tokenizer(header->metadata);
    for (const std::string_view text : {"The mill\n  grinds 1234 sacks.", "\u00c5ngstr\u00f6m \u4f60\u597d<s>", ""}) {
      static_cast<void>(tokenizer.decode(tokenizer.encode(text, true, true)));
    }
  });
  quern::test::accept_errors([&] { quern::read_hparams(header->metadata); });
  return 0;
}
