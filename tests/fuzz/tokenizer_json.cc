#include "formats/tokenizer/tokenizer_json.h"

#include "formats/base/error.h"
#include "tests/fuzz/fuzz.h"

namespace {

template <typename Parse>
void try_parse(Parse parse, std::string_view text) {
  try {
    parse(text);
  } catch (const quern::Error& e) {
    if (e.kind() == quern::ErrorKind::kInternal) throw;
  }
}

}  // namespace

// The same bytes as each of the JSON files that a tokenizer consists of.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try_parse(quern::parse_tokenizer_json, text);
  try_parse(quern::parse_tokenizer_config, text);
  try_parse(quern::parse_added_tokens, text);
  try_parse(quern::parse_chat_templates, text);
  return 0;
}
