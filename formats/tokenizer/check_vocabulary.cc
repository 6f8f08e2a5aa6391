#include "formats/tokenizer/check_vocabulary.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <unordered_set>

#include "formats/base/error.h"
#include "formats/base/utf8.h"

// Byte-level tokens are written in an alphabet of 256 characters, one for each byte: those that can be printed stand for themselves, the
// others for the code points from 256 on (GPT-2's table). A token of a tokenizer that merges is a character or the result of a merge; what
// is neither can never come out, and when that holds for most, merges are missing. Added tokens are cut out of the text before and do not
// count.

namespace quern {
namespace {

constexpr size_t kNByteTokens = 256;

using TextSet = std::unordered_set<std::string_view>;

std::string utf8_of(uint32_t code_point) {  // below 0x800
  if (code_point < 0x80) return {static_cast<char>(code_point)};
  return {static_cast<char>(0xC0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3F))};
}

// The character that stands for each byte.
std::array<std::string, kNByteTokens> byte_characters() {
  std::array<std::string, kNByteTokens> characters;
  uint32_t next = kNByteTokens;
  for (uint32_t byte = 0; byte < kNByteTokens; ++byte) {
    const bool is_printed = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    characters[byte] = utf8_of(is_printed ? byte : next++);
  }
  return characters;
}

bool is_one_character(std::string_view text) { return !text.empty() && utf8_sequence_length(text, 0) == text.size(); }

std::string padding_text(int64_t id) { return "[PAD" + std::to_string(id) + "]"; }

bool is_padding(const Vocabulary& vocabulary, int64_t id) {
  return vocabulary.type(id) == TokenType::kUnused && vocabulary.text(id) == padding_text(id);
}

void check_duplicates(Vocabulary& vocabulary) {
  std::unordered_map<std::string_view, int64_t> ids;
  std::vector<int64_t> padding;
  for (int64_t id = 0; id < vocabulary.size(); ++id) {
    if (is_padding(vocabulary, id)) {
      padding.push_back(id);
      continue;
    }
    const auto [it, is_new] = ids.emplace(vocabulary.text(id), id);
    if (is_new) continue;
    throw Error(ErrorKind::kFormat, "ids " + std::to_string(it->second) + " and " + std::to_string(id) + " have the same text '" +
                                        printable(vocabulary.text(id), 40) + "', which llama.cpp refuses");
  }
  for (const int64_t id : padding) {
    std::string text = padding_text(id);
    if (!ids.contains(text)) continue;
    while (ids.contains(text)) text += '_';
    vocabulary.set(id, std::move(text), vocabulary.score(id), TokenType::kUnused);
  }
}

// Padding at the end is how embeddings are rounded up; padding in between means that tokens are missing.
void note_gaps(const Vocabulary& vocabulary, std::vector<std::string>& notes) {
  int64_t end = vocabulary.size();
  while (end > 0 && is_padding(vocabulary, end - 1)) --end;
  int64_t n_gaps = 0, first = -1;
  for (int64_t id = end - 1; id >= 0; --id) {
    if (!is_padding(vocabulary, id)) continue;
    first = id;
    ++n_gaps;
  }
  if (n_gaps == 0) return;
  notes.push_back("no token has id " + std::to_string(first) + (n_gaps > 1 ? " and " + std::to_string(n_gaps - 1) + " others" : "") +
                  " below the last, " + std::to_string(end - 1) + "; written as unused");
}

TextSet texts_of(const Vocabulary& vocabulary) {
  TextSet texts;
  for (int64_t id = 0; id < vocabulary.size(); ++id) {
    if (!is_padding(vocabulary, id)) texts.insert(vocabulary.text(id));
  }
  return texts;
}

void note_missing_bytes(size_t n_missing, const char* consequence, std::vector<std::string>& notes) {
  if (n_missing == 0) return;
  notes.push_back(std::to_string(n_missing) + " of 256 bytes have no token; " + consequence);
}

bool is_spelled_in(const TextSet& alphabet, std::string_view text) {
  for (size_t at = 0, length = 0; at < text.size(); at += length) {
    length = utf8_sequence_length(text, at);
    if (length == 0 || !alphabet.contains(text.substr(at, length))) return false;
  }
  return true;
}

void check_byte_level(const Vocabulary& vocabulary, std::vector<std::string>& notes) {
  const std::array<std::string, kNByteTokens> characters = byte_characters();
  const TextSet texts = texts_of(vocabulary);
  const auto n_missing = std::ranges::count_if(characters, [&](const std::string& text) { return !texts.contains(text); });
  note_missing_bytes(static_cast<size_t>(n_missing), "llama.cpp drops them from texts", notes);
  const TextSet alphabet(characters.begin(), characters.end());
  int64_t n_foreign = 0, first = -1;
  for (int64_t id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary.type(id) != TokenType::kNormal || is_spelled_in(alphabet, vocabulary.text(id))) continue;
    if (n_foreign++ == 0) first = id;
  }
  if (n_foreign == 0) return;
  notes.push_back(std::to_string(n_foreign) + " tokens, first '" + printable(vocabulary.text(first), 40) + "' (id " +
                  std::to_string(first) + "), have characters that spell no byte; engines print them as [UNK_BYTE]");
}

void check_byte_tokens(const Vocabulary& vocabulary, std::vector<std::string>& notes) {
  const TextSet texts = texts_of(vocabulary);
  size_t n_missing = 0;
  for (uint32_t byte = 0; byte < kNByteTokens; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    const bool spelled = texts.contains(name) || (byte < 0x80 && texts.contains(utf8_of(byte)));
    n_missing += spelled ? 0 : 1;
  }
  note_missing_bytes(n_missing, "llama.cpp stops at texts that need them", notes);
}

}  // namespace

void check_reach(const TokenizerJson& json, std::vector<std::string>& notes) {
  std::unordered_set<std::string> made;
  for (const auto& [left, right] : json.merges) made.insert(left + right);
  TextSet added{json.unk_token};
  for (const AddedToken& token : json.added) added.insert(token.content);
  size_t n_long = 0, n_out_of_reach = 0;
  for (const auto& [text, id] : json.vocab) {
    if (is_one_character(text) || added.contains(text) || is_byte_token(text)) continue;
    ++n_long;
    n_out_of_reach += made.contains(text) ? 0 : 1;
  }
  const std::string counts = std::to_string(n_out_of_reach) + " of " + std::to_string(n_long);
  if (json.merges.empty() && n_long > 0) {
    throw Error(ErrorKind::kFormat,
                "there are no merges, but " + std::to_string(n_long) +
                    " tokens are longer than a character: texts would be spelled letter by letter; the file was damaged, "
                    "take the tokenizer of the original model");
  }
  if (n_out_of_reach * 4 > n_long) notes.push_back(counts + " tokens are made by no merge: merges are missing, texts get other ids");
}

void check_vocabulary(bool byte_level, Vocabulary& vocabulary, std::vector<std::string>& notes) {
  check_duplicates(vocabulary);
  note_gaps(vocabulary, notes);
  if (byte_level) {
    check_byte_level(vocabulary, notes);
  } else {
    check_byte_tokens(vocabulary, notes);
  }
}

}  // namespace quern
