#include "formats/tokenizer/tokenizer_json.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "formats/base/error.h"
#include "formats/base/json_tree.h"
#include "formats/base/utf8.h"
#include "formats/tokenizer/pretokenizers.h"

// A tokenizer.json is a chain of components (normalizer, pre-tokenizer, model, post-processor), each a step or a Sequence of steps. GGUF
// can name a few of all the combinations, and a step that is passed over silently gives other ids without a word. So this reader knows the
// steps that GGUF can express and refuses other normalizers, pre-tokenizers and models by name. The pre-tokenizer comes first, because it
// decides whether tokens spell bytes or text, and by that which steps of the normalizer mean something. Of the post-processor
// the steps that put tokens around a text are read; the ByteLevel step beside them moves offsets, not ids.
//
// The side files (tokenizer_config.json, added_tokens.json, chat_template.json) carry much that is nobody's business here, so in them
// members of another kind than expected mostly count as absent. null is the same as absent everywhere.

namespace quern {
namespace {

using Json = nlohmann::json;

// Ids are array indices of the output; no vocabulary is near this.
constexpr int64_t kMaxTokens = int64_t{1} << 22;
constexpr int kMaxDepth = 32;
constexpr std::string_view kMetaspaceMark = "\u2581";

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorKind::kFormat, message); }
[[noreturn]] void refuse(const std::string& message) { throw Error(ErrorKind::kUnsupported, message); }

Json object_of(Json json) {
  if (!json.is_object()) fail("expected a JSON object");
  return json;
}

// Files that hold ids: what occurs twice in them has two of them.
Json parse_strictly(std::string_view text) { return object_of(parse_json_tree(text, kMaxDepth)); }

Json parse_leniently(std::string_view text, std::vector<std::string>& repeated) {
  return object_of(parse_python_json(text, kMaxDepth, repeated));
}

Json parse_leniently(std::string_view text) {
  std::vector<std::string> repeated;
  return parse_leniently(text, repeated);
}

const Json* find(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

const Json& need(const Json& object, const char* key) {
  const Json* value = find(object, key);
  if (value == nullptr) fail(std::string("'") + key + "' is missing");
  return *value;
}

std::string text_of(const Json& value, const std::string& what) {
  if (!value.is_string()) fail(what + " is not a string");
  return value.get<std::string>();
}

std::string text_of(const Json& object, const char* key, const std::string& absent) {
  const Json* value = find(object, key);
  return value == nullptr ? absent : text_of(*value, std::string("'") + key + "'");
}

bool flag_of(const Json& object, const char* key, bool absent) {
  const Json* value = find(object, key);
  if (value == nullptr) return absent;
  if (!value->is_boolean()) fail(std::string("'") + key + "' is not true or false");
  return value->get<bool>();
}

std::optional<bool> find_flag(const Json& object, const char* key) {
  const Json* value = find(object, key);
  if (value == nullptr || !value->is_boolean()) return std::nullopt;
  return value->get<bool>();
}

int64_t token_id(const Json& value, const std::string& token) {
  const bool in_range =
      value.is_number_integer() && (value.is_number_unsigned() ? value.get<uint64_t>() < uint64_t{kMaxTokens} : value.get<int64_t>() >= 0);
  if (!in_range) {
    fail("token '" + printable(token, 40) + "' has id " + value.dump().substr(0, 40) + "; expected 0 to " + std::to_string(kMaxTokens - 1));
  }
  return value.get<int64_t>();
}

// A Sequence is its members, and those of the Sequences among them; anything else is one step.
void append_steps(const Json& step, const char* members, std::vector<const Json*>& steps) {
  if (text_of(step, "type", "") != "Sequence") return steps.push_back(&step);
  const Json& list = need(step, members);
  if (!list.is_array()) fail(std::string("'") + members + "' is not a list");
  for (const Json& member : list) append_steps(member, members, steps);
}

std::vector<const Json*> steps_of(const Json& file, const char* key, const char* members) {
  std::vector<const Json*> steps;
  if (const Json* step = find(file, key)) append_steps(*step, members, steps);
  return steps;
}

// The text or expression that a Split or Replace step looks for.
std::string pattern_of(const Json& step, bool& is_expression) {
  const Json& pattern = need(step, "pattern");
  const Json* expression = find(pattern, "Regex");
  is_expression = expression != nullptr;
  return is_expression ? text_of(*expression, "'Regex'") : text_of(need(pattern, "String"), "'String'");
}

// Every match and every stretch between matches is a piece. "Removed" with "invert" keeps matches only, which is the same for the
// expressions that match everything, and only those are known to find_pre_tokenizer.
std::string expression_of_split(const Json& step) {
  bool is_expression = false;
  const std::string pattern = pattern_of(step, is_expression);
  const std::string behavior = text_of(step, "behavior", "Isolated");
  const bool invert = flag_of(step, "invert", false);
  const bool isolates = (behavior == "Isolated" && !invert) || (behavior == "Removed" && invert);
  if (!is_expression || !isolates) {
    refuse("pre-tokenizer step Split of '" + printable(pattern) + "' with behavior " + printable(behavior) + " has no GGUF equivalent");
  }
  return pattern;
}

void read_byte_level_step(const Json& step, TokenizerJson& out) {
  if (flag_of(step, "add_prefix_space", true)) refuse("ByteLevel pre-tokenizer with add_prefix_space has no GGUF equivalent");
  if (flag_of(step, "use_regex", true)) out.expressions.emplace_back(kByteLevelExpression);
}

void read_metaspace_step(const Json& step, TokenizerJson& out) {
  const std::string replacement = text_of(step, "replacement", std::string(kMetaspaceMark));
  const std::string scheme = text_of(step, "prepend_scheme", flag_of(step, "add_prefix_space", true) ? "always" : "never");
  if (replacement != kMetaspaceMark) refuse("Metaspace pre-tokenizer with replacement '" + printable(replacement) + "' is not supported");
  // Words are split apart by the mark; merges never cross it in the vocabularies that engines support either way.
  out.space_prefix = scheme != "never";
}

void read_pre_tokenizer(const Json& file, TokenizerJson& out) {
  bool byte_level = false;
  bool metaspace = false;
  for (const Json* step : steps_of(file, "pre_tokenizer", "pretokenizers")) {
    const std::string type = text_of(*step, "type", "");
    if (byte_level) refuse("pre-tokenizer step " + printable(type) + " after ByteLevel has no GGUF equivalent");
    if (type == "Split") {
      out.expressions.push_back(expression_of_split(*step));
    } else if (type == "Digits") {
      out.expressions.emplace_back(flag_of(*step, "individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)");
    } else if (type == "ByteLevel") {
      read_byte_level_step(*step, out);
      byte_level = true;
    } else if (type == "Metaspace") {
      read_metaspace_step(*step, out);
      metaspace = true;
    } else {
      refuse("pre-tokenizer step '" + printable(type) + "' has no GGUF equivalent");
    }
  }
  if (metaspace && (byte_level || !out.expressions.empty())) refuse("pre-tokenizer mixes Metaspace with other steps");
  out.kind = byte_level ? TokenizerJson::Kind::kByteLevel : TokenizerJson::Kind::kMetaspace;
  if (!byte_level && !metaspace && !out.expressions.empty()) {
    refuse("pre-tokenizer with expression '" + printable(out.expressions.front()) + "' does not end in ByteLevel");
  }
}

// Byte-level files may normalise to NFC. Metaspace ones spell " " as U+2581, here or in the pre-tokenizer, and may put one in front.
void read_normalizer(const Json& file, TokenizerJson& out) {
  const bool metaspace = out.kind == TokenizerJson::Kind::kMetaspace;
  for (const Json* step : steps_of(file, "normalizer", "normalizers")) {
    const std::string type = text_of(*step, "type", "");
    bool is_expression = false;
    if (type == "NFC" && !metaspace) {
      out.nfc = true;
    } else if (type == "Prepend" && metaspace && text_of(*step, "prepend", "") == kMetaspaceMark) {
      out.space_prefix = true;
    } else if (type == "Replace" && metaspace && pattern_of(*step, is_expression) == " " &&
               text_of(*step, "content", "") == kMetaspaceMark) {
    } else {
      refuse("normalizer step '" + printable(type) + "' has no GGUF equivalent");
    }
  }
}

std::vector<std::pair<std::string, int64_t>> vocab_of(const Json& vocab) {
  if (!vocab.is_object()) fail("'vocab' is not an object");
  if (vocab.size() > uint64_t{kMaxTokens}) fail("'vocab' has " + std::to_string(vocab.size()) + " tokens");
  std::vector<std::pair<std::string, int64_t>> tokens;
  tokens.reserve(vocab.size());
  std::vector<bool> used;
  for (const auto& [text, id_value] : vocab.items()) {
    const int64_t id = token_id(id_value, text);
    const auto index = static_cast<size_t>(id);
    if (index >= used.size()) used.resize(std::max(index + 1, used.size() * 2));
    if (used[index]) fail("id " + std::to_string(id) + " belongs to two tokens, one of them '" + printable(text, 40) + "'");
    used[index] = true;
    tokens.emplace_back(text, id);
  }
  return tokens;
}

std::pair<std::string, std::string> merge_of(const std::string& text) {
  const size_t space = text.find(' ');
  if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
    fail("merge '" + printable(text, 40) + "' is not two tokens with a space between them");
  }
  return {text.substr(0, space), text.substr(space + 1)};
}

std::pair<std::string, std::string> merge_of(const Json& merge) {
  if (merge.is_array()) {
    if (merge.size() != 2) fail("a merge has " + std::to_string(merge.size()) + " parts; expected 2");
    return {text_of(merge[0], "part of a merge"), text_of(merge[1], "part of a merge")};
  }
  return merge_of(text_of(merge, "merge"));
}

void read_model(const Json& model, TokenizerJson& out) {
  const std::string type = text_of(model, "type", "BPE");
  if (type != "BPE") refuse("tokenizer model '" + printable(type) + "' is not supported; expected BPE");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!text_of(model, key, "").empty()) refuse(std::string("BPE with '") + key + "' has no GGUF equivalent");
  }
  const Json* dropout = find(model, "dropout");
  if (dropout != nullptr && *dropout != 0.0) refuse("BPE with dropout gives random ids");
  out.ignore_merges = flag_of(model, "ignore_merges", false);
  out.unk_token = text_of(model, "unk_token", "");
  out.vocab = vocab_of(need(model, "vocab"));
  const Json& merges = need(model, "merges");
  if (!merges.is_array()) fail("'merges' is not a list");
  out.merges.reserve(merges.size());
  for (const Json& merge : merges) out.merges.push_back(merge_of(merge));
}

AddedToken added_token_of(const Json& entry, const Json& id) {
  AddedToken token;
  token.content = text_of(need(entry, "content"), "'content' of an added token");
  token.id = token_id(id, token.content);
  token.special = flag_of(entry, "special", false);
  return token;
}

std::string special_of(const Json& item) {
  const Json* special = find(item, "SpecialToken");
  return special == nullptr ? std::string() : text_of(*special, "id", "");
}

// What stands before and after the text, and between two.
SpecialTemplate template_of(const Json& step) {
  SpecialTemplate result;
  const Json* single = find(step, "single");
  if (single != nullptr && single->is_array()) {
    bool before = true;
    for (const Json& item : *single) {
      if (find(item, "Sequence") != nullptr) {
        before = false;
      } else if (before) {
        if (result.n_before++ == 0) result.first = special_of(item);
      } else {
        ++result.n_after;
        result.last = special_of(item);
      }
    }
  }
  const Json* pair = find(step, "pair");
  if (pair == nullptr || !pair->is_array()) return result;
  bool inside = false;
  for (const Json& item : *pair) {
    const Json* sequence = find(item, "Sequence");
    const bool is_b = sequence != nullptr && text_of(*sequence, "id", "") == "B";
    if (is_b) break;
    if (inside) {
      result.has_pair_separator = true;
      result.separators.push_back(special_of(item));
    }
    inside = inside || sequence != nullptr;
  }
  return result;
}

// [CLS] A [SEP] and [CLS] A [SEP] B [SEP]; RoBERTa separates with two. A token is a pair of text and id.
SpecialTemplate template_of_bert(const Json& step, size_t n_separators) {
  const auto token = [&](const char* key) {
    const Json& pair = need(step, key);
    if (!pair.is_array() || pair.size() != 2) fail(std::string("'") + key + "' of the post-processor is not a token and its id");
    return text_of(pair[0], std::string("'") + key + "'");
  };
  const std::string separator = token("sep");
  return {token("cls"), separator, 1, 1, true, std::vector<std::string>(n_separators, separator)};
}

void read_post_processor(const Json& file, TokenizerJson& out) {
  for (const Json* step : steps_of(file, "post_processor", "processors")) {
    const std::string type = text_of(*step, "type", "");
    if (type == "TemplateProcessing") {
      out.special_template = template_of(*step);
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      out.special_template = template_of_bert(*step, type == "BertProcessing" ? 1 : 2);
    } else if (type != "ByteLevel") {
      refuse("post-processor step '" + printable(type) + "' has no GGUF equivalent");
    }
  }
}

std::vector<std::pair<std::string, std::string>> special_tokens_of(const Json& file) {
  std::vector<std::pair<std::string, std::string>> tokens;
  for (const char* type : {"bos", "eos", "unk", "sep", "pad", "cls", "mask"}) {
    const Json* entry = find(file, (std::string(type) + "_token").c_str());
    if (entry != nullptr && entry->is_object()) entry = find(*entry, "content");
    if (entry != nullptr && entry->is_string()) tokens.emplace_back(type, entry->get<std::string>());
  }
  return tokens;
}

void append_templates(const Json& value, std::vector<ChatTemplate>& out) {
  if (value.is_string()) {
    out.push_back({"default", value.get<std::string>()});
    return;
  }
  if (!value.is_array()) return;
  for (const Json& entry : value) {
    const Json* name = find(entry, "name");
    const Json* text = find(entry, "template");
    if (name != nullptr && name->is_string() && text != nullptr && text->is_string()) {
      out.push_back({name->get<std::string>(), text->get<std::string>()});
    }
  }
}

}  // namespace

TokenizerJson parse_tokenizer_json(std::string_view text) {
  const Json file = parse_strictly(text);
  TokenizerJson out;
  const Json& model = need(file, "model");
  read_pre_tokenizer(file, out);
  read_normalizer(file, out);
  read_model(model, out);
  if (out.kind == TokenizerJson::Kind::kMetaspace && !flag_of(model, "byte_fallback", false)) {
    refuse("BPE without ByteLevel and without byte_fallback cannot spell every text");
  }
  if (const Json* added = find(file, "added_tokens")) {
    if (!added->is_array()) fail("'added_tokens' is not a list");
    for (const Json& entry : *added) out.added.push_back(added_token_of(entry, need(entry, "id")));
  }
  read_post_processor(file, out);
  return out;
}

std::vector<std::pair<std::string, int64_t>> parse_vocab_json(std::string_view text) { return vocab_of(parse_strictly(text)); }

std::vector<std::pair<std::string, std::string>> parse_merges_txt(std::string_view text) {
  if (find_invalid_utf8(text)) fail(is_utf16(text) ? "is UTF-16, save it as UTF-8" : "is not UTF-8");
  std::vector<std::pair<std::string, std::string>> merges;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string line(text.substr(at, end - at));
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty() && !(at == 0 && line.starts_with("#version"))) merges.push_back(merge_of(line));
    at = end + 1;
  }
  return merges;
}

std::vector<std::pair<std::string, std::string>> parse_special_tokens_map(std::string_view text) {
  return special_tokens_of(parse_leniently(text));
}

TokenizerConfig parse_tokenizer_config(std::string_view text) {
  TokenizerConfig out;
  const Json file = parse_leniently(text, out.repeated);
  out.tokenizer_class = text_of(file, "tokenizer_class", "");
  out.special_tokens = special_tokens_of(file);
  out.add_bos_token = find_flag(file, "add_bos_token");
  out.add_eos_token = find_flag(file, "add_eos_token");
  out.add_prefix_space = find_flag(file, "add_prefix_space");
  if (const Json* added = find(file, "added_tokens_decoder"); added != nullptr && added->is_object()) {
    for (const auto& [key, entry] : added->items()) {
      const Json id =
          key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos && !key.empty() ? Json(std::stoll(key)) : Json(key);
      out.added.push_back(added_token_of(entry, id));
    }
  }
  if (const Json* templates = find(file, "chat_template")) append_templates(*templates, out.chat_templates);
  return out;
}

std::vector<AddedToken> parse_added_tokens(std::string_view text) {
  const Json file = parse_strictly(text);
  std::vector<AddedToken> out;
  for (const auto& [content, id] : file.items()) out.push_back({token_id(id, content), content, false});
  return out;
}

std::vector<ChatTemplate> parse_chat_templates(std::string_view text) {
  const Json file = parse_leniently(text);
  std::vector<ChatTemplate> out;
  if (const Json* templates = find(file, "chat_template")) append_templates(*templates, out);
  return out;
}

}  // namespace quern
