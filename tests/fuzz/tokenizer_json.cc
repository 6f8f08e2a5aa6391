#include "formats/tokenizer/tokenizer_json.h"

#include "formats/tokenizer/template_text.h"
#include "tests/fuzz/fuzz.h"

// The same bytes as each of the files that a tokenizer consists of, and as a chat template.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = quern::test::input_text(data, size);
  quern::test::accept_errors([&] { quern::parse_tokenizer_json(text); });
  quern::test::accept_errors([&] { quern::parse_tokenizer_config(text); });
  quern::test::accept_errors([&] { quern::parse_added_tokens(text); });
  quern::test::accept_errors([&] { quern::parse_chat_templates(text); });
  quern::test::accept_errors([&] { quern::parse_special_tokens_map(text); });
  quern::test::accept_errors([&] { quern::parse_vocab_json(text); });
  quern::test::accept_errors([&] { quern::parse_merges_txt(text); });
  const auto fault = quern::find_template_fault(text);
  QUERN_CHECK(!fault || fault->at <= text.size());
  return 0;
}
