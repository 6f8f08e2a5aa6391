#include "formats/tokenizer/tokenizer_json.h"

#include "tests/fuzz/fuzz.h"

// The same bytes as each of the JSON files that a tokenizer consists of.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = quern::test::input_text(data, size);
  quern::test::accept_errors([&] { quern::parse_tokenizer_json(text); });
  quern::test::accept_errors([&] { quern::parse_tokenizer_config(text); });
  quern::test::accept_errors([&] { quern::parse_added_tokens(text); });
  quern::test::accept_errors([&] { quern::parse_chat_templates(text); });
  return 0;
}
