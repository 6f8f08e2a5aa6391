#include "runtime/tokenizer/tokenizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>

#include "formats/base/error.h"
#include "formats/tokenizer/pretokenizers.h"
#include "runtime/tokenizer/byte_pair_model.h"
#include "runtime/tokenizer/piece_model.h"

// Text is checked to be UTF-8 once, at the door, and the models below need not look again. Special tokens are cut out first; each stretch
// between two of them is normalised and encoded by itself. Two matchers are made in advance, one for text that may spell control tokens and
// one for text that may not. Decoding goes token by token and takes back the one space that the model puts in front of a stretch.

namespace quern {
namespace {

TokenTable read_table(const Metadata& metadata, bool with_scores) {
  TokenTable table;
  const std::vector<std::string>* tokens = metadata.find_string_array("tokenizer.ggml.tokens");
  if (tokens == nullptr || tokens->empty()) throw Error(ErrorKind::kFormat, "tokenizer.ggml.tokens is missing or empty");
  table.tokens = *tokens;
  table.types.assign(tokens->size(), TokenType::kNormal);
  if (const auto types = metadata.find_int_array("tokenizer.ggml.token_type")) {
    if (types->size() != tokens->size()) throw Error(ErrorKind::kFormat, "tokenizer.ggml.token_type and tokens differ in length");
    for (size_t i = 0; i < types->size(); ++i) {
      const int64_t type = (*types)[i];
      if (type >= 1 && type <= 6) table.types[i] = static_cast<TokenType>(type);
    }
  }
  if (!with_scores) return table;
  const auto scores = metadata.find_float_array("tokenizer.ggml.scores");
  if (!scores || scores->size() != tokens->size()) {
    throw Error(ErrorKind::kFormat, "tokenizer.ggml.scores is missing or differs in length from tokens");
  }
  table.scores.reserve(scores->size());
  for (const double score : *scores) table.scores.push_back(static_cast<float>(score));
  return table;
}

std::optional<int32_t> read_id(const Metadata& metadata, std::string_view key, int64_t vocab_size, int64_t absent = -1) {
  const int64_t id = metadata.find_int(key).value_or(absent);
  if (id < 0 || id == int64_t{UINT32_MAX}) return std::nullopt;  // some files write -1 for "none"
  if (id >= vocab_size) {
    throw Error(ErrorKind::kFormat,
                std::string(key) + " is " + std::to_string(id) + ", but there are " + std::to_string(vocab_size) + " tokens");
  }
  return static_cast<int32_t>(id);
}

SpecialMatcher matcher_of(const TokenTable& table, bool with_control) {
  std::vector<SpecialMatcher::Token> tokens;
  for (size_t id = 0; id < table.tokens.size(); ++id) {
    const TokenType type = table.type(id);
    const bool control = type == TokenType::kControl || type == TokenType::kUnknown;
    if (type == TokenType::kUserDefined || (control && with_control)) tokens.push_back({table.tokens[id], static_cast<int32_t>(id)});
  }
  return SpecialMatcher(std::move(tokens));
}

void check_utf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  utf8proc_int32_t character = 0;
  for (size_t offset = 0; offset < text.size();) {
    const utf8proc_ssize_t length = utf8proc_iterate(bytes + offset, static_cast<utf8proc_ssize_t>(text.size() - offset), &character);
    if (length <= 0) throw Error(ErrorKind::kFormat, "text is not valid UTF-8").at(offset);
    offset += static_cast<size_t>(length);
  }
}

// Nothing below U+0300, whose first byte is 0xCC, changes under NFC.
bool may_change_under_nfc(std::string_view text) {
  return std::ranges::any_of(text, [](char c) { return static_cast<unsigned char>(c) >= 0xCC; });
}

std::string to_nfc(std::string_view text) {
  utf8proc_uint8_t* result = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()), &result,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (size < 0) throw Error(ErrorKind::kUnsupported, std::string("normalising the text fails: ") + utf8proc_errmsg(size));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(result, &std::free);
  return std::string(reinterpret_cast<const char*>(result), static_cast<size_t>(size));
}

}  // namespace

Tokenizer::Tokenizer(const Metadata& metadata) {
  const std::string kind = metadata.get_string("tokenizer.ggml.model");
  const bool byte_level = kind == "gpt2";
  if (!byte_level && kind != "llama") {
    throw Error(ErrorKind::kUnsupported, "tokenizer.ggml.model '" + printable(kind) + "' is not supported; expected gpt2 or llama");
  }
  vocabulary_ = read_table(metadata, !byte_level);
  bool add_bos = !byte_level;
  if (byte_level) {
    const std::string name = metadata.get_string("tokenizer.ggml.pre");
    const PreTokenizer* pre = find_pre_tokenizer(name);
    if (pre == nullptr) throw Error(ErrorKind::kUnsupported, "tokenizer.ggml.pre '" + printable(name) + "' is not supported");
    const std::vector<std::string>* merges = metadata.find_string_array("tokenizer.ggml.merges");
    if (merges == nullptr) throw Error(ErrorKind::kFormat, "tokenizer.ggml.merges is missing");
    model_ = std::make_unique<BytePairModel>(vocabulary_, *merges, *pre);
    nfc_ = pre->nfc;
    add_bos = pre->adds_bos;
  } else {
    PieceModel::Options options;
    options.space_in_front = metadata.find_bool("tokenizer.ggml.add_space_prefix").value_or(true);
    options.remove_extra_spaces = metadata.find_bool("tokenizer.ggml.remove_extra_whitespaces").value_or(false);
    options.unknown_id = read_id(metadata, "tokenizer.ggml.unknown_token_id", vocab_size(), 0).value_or(0);
    model_ = std::make_unique<PieceModel>(vocabulary_, options);
  }
  user_tokens_ = matcher_of(vocabulary_, false);
  special_tokens_ = matcher_of(vocabulary_, true);
  // llama.cpp's defaults for files without these keys.
  bos_id_ = read_id(metadata, "tokenizer.ggml.bos_token_id", vocab_size(), !byte_level && vocab_size() > 2 ? 1 : -1);
  eos_id_ = read_id(metadata, "tokenizer.ggml.eos_token_id", vocab_size(), !byte_level && vocab_size() > 2 ? 2 : -1);
  add_bos_ = metadata.find_bool("tokenizer.ggml.add_bos_token").value_or(add_bos) && bos_id_.has_value();
  add_eos_ = metadata.find_bool("tokenizer.ggml.add_eos_token").value_or(false) && eos_id_.has_value();
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special, bool parse_special) const {
  check_utf8(text);
  const SpecialMatcher& matcher = parse_special ? special_tokens_ : user_tokens_;
  std::vector<int32_t> ids;
  if (add_special && add_bos_) ids.push_back(*bos_id_);
  bool after_special = true;
  for (size_t done = 0; done < text.size();) {
    const SpecialMatcher::Match match = matcher.find(text, done);
    const size_t end = match.length == 0 ? text.size() : match.offset;
    if (end > done) {
      encode_text(text.substr(done, end - done), after_special, ids);
      after_special = false;
    }
    if (match.length > 0) {
      ids.push_back(match.id);
      after_special = true;
    }
    done = end + match.length;
  }
  if (add_special && add_eos_) ids.push_back(*eos_id_);
  return ids;
}

void Tokenizer::encode_text(std::string_view text, bool after_special, std::vector<int32_t>& ids) const {
  if (nfc_ && may_change_under_nfc(text)) {
    model_->encode(to_nfc(text), after_special, ids);
  } else {
    model_->encode(text, after_special, ids);
  }
}

std::string Tokenizer::piece(int32_t id) const {
  if (id < 0 || id >= vocab_size()) {
    throw Error(ErrorKind::kFormat, "token id " + std::to_string(id) + " is outside the vocabulary of " + std::to_string(vocab_size()));
  }
  const auto index = static_cast<size_t>(id);
  const TokenType type = vocabulary_.type(index);
  if (type != TokenType::kNormal && type != TokenType::kByte && type != TokenType::kUnused) return vocabulary_.tokens[index];
  std::string bytes;
  model_->append_bytes(id, bytes);
  return bytes;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string out;
  bool after_special = true;
  for (const int32_t id : ids) {
    const std::string bytes = piece(id);
    const TokenType type = vocabulary_.type(static_cast<size_t>(id));
    const bool is_text = type == TokenType::kNormal || type == TokenType::kByte;
    const bool put_in_front = model_->puts_space_in_front() && after_special && is_text && bytes.starts_with(' ');
    out.append(bytes, put_in_front ? 1 : 0);
    after_special = !is_text;
  }
  return out;
}

}  // namespace quern
