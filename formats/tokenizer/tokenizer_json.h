#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quern {

struct AddedToken {
  int64_t id = 0;
  std::string content;
  bool special = false;
};

// What a TemplateProcessing, BertProcessing or RobertaProcessing step puts around one text, and between two.
struct SpecialTemplate {
  std::string first;  // empty: the text comes first
  std::string last;
  size_t n_before = 0;                  // of which `first` is the first
  size_t n_after = 0;                   // of which `last` is the last
  bool has_pair_separator = false;      // something other than `first` and `last` stands between two texts
  std::vector<std::string> separators;  // what it is
};

// The parts of a Hugging Face tokenizer.json that GGUF can express.
struct TokenizerJson {
  enum class Kind {
    kByteLevel,  // tokens spell bytes by GPT-2's printable characters
    kMetaspace   // tokens are text with U+2581 for spaces, and <0xNN> for bytes outside the vocabulary
  };
  Kind kind = Kind::kByteLevel;
  std::vector<std::pair<std::string, int64_t>> vocab;       // in no order; ids and texts are unique
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  bool ignore_merges = false;
  std::string unk_token;  // kMetaspace
  std::vector<AddedToken> added;
  std::vector<std::string> expressions;  // kByteLevel: see PreTokenizer
  bool nfc = false;
  bool space_prefix = false;  // kMetaspace: a space is put before the text
  std::optional<SpecialTemplate> special_template;
};

// Parses the text of a tokenizer.json. Throws kFormat for what is not such a file, also one in which a token or another key occurs twice,
// and kUnsupported, naming it, for every component that changes ids and has no place in GGUF: models other than BPE, other normalizers,
// pre-tokenizers and post-processors, affixes, dropout.
TokenizerJson parse_tokenizer_json(std::string_view text);

// The two files of a byte-level BPE tokenizer in its slow form: vocab.json, an object of ids by token, and merges.txt, one merge a line
// under an optional "#version" line.
std::vector<std::pair<std::string, int64_t>> parse_vocab_json(std::string_view text);
std::vector<std::pair<std::string, std::string>> parse_merges_txt(std::string_view text);

struct ChatTemplate {
  std::string name;  // "default" for the only one
  std::string text;
};

// The parts of a tokenizer_config.json that GGUF can express.
struct TokenizerConfig {
  std::string tokenizer_class;
  std::vector<std::pair<std::string, std::string>> special_tokens;  // "bos" -> "<s>"
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  std::optional<bool> add_prefix_space;
  std::vector<AddedToken> added;  // added_tokens_decoder
  std::vector<ChatTemplate> chat_templates;
  std::vector<std::string> repeated;  // keys that occur twice, of which the last value counts
};

TokenizerConfig parse_tokenizer_config(std::string_view text);

// special_tokens_map.json, as TokenizerConfig::special_tokens.
std::vector<std::pair<std::string, std::string>> parse_special_tokens_map(std::string_view text);

// added_tokens.json: an object of ids by text.
std::vector<AddedToken> parse_added_tokens(std::string_view text);

// The "chat_template" member of a chat_template.json (a text, or a list of named ones).
std::vector<ChatTemplate> parse_chat_templates(std::string_view text);

}  // namespace quern
