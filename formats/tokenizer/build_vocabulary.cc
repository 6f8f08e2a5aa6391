#include "formats/tokenizer/build_vocabulary.h"

#include <unordered_map>
#include <unordered_set>

#include "formats/base/error.h"
#include "formats/base/utf8.h"

// Every id has an entry of padding to begin with; the vocabulary of the file goes over it, then the added tokens, which are control tokens
// if they are marked as such or look it. An added token may repeat an entry of the vocabulary, but neither move it to another id nor take
// the id of another. All merges are checked against the vocabulary, since engines pass over those that they cannot find.
//
// Scores stand for merges in the Metaspace kind. An engine with scores joins any two neighbours that make a token, the best first; whether
// that is what the file's merges do is found by cutting every token at every byte and looking both parts up. That takes as many look-ups as
// all tokens together have bytes, and not the square of their number.

namespace quern {
namespace {

constexpr float kAddedScore = -1000.0f;
constexpr std::string_view kSpaceMark = "\u2581";

using TextSet = std::unordered_set<std::string_view>;

// Some files forget to mark their control tokens as special; these spellings are control tokens everywhere.
bool looks_special(std::string_view text) {
  const auto between = [&](std::string_view open, std::string_view close) {
    return text.size() >= open.size() + close.size() && text.starts_with(open) && text.ends_with(close);
  };
  return text == "<pad>" || text == "<mask>" || text == "<2mass>" || text == "[@BOS@]" || between("<|", "|>") || between("<｜", "｜>") ||
         between("<unused", ">");
}

std::string with_spaces(std::string text) {
  for (size_t at = text.find(kSpaceMark); at != std::string::npos; at = text.find(kSpaceMark, at + 1)) {
    text.replace(at, kSpaceMark.size(), " ");
  }
  return text;
}

void set_added(const AddedToken& token, bool spaces_marked, Vocabulary& vocabulary) {
  const bool control = token.special || looks_special(token.content);
  std::string text = control || !spaces_marked ? token.content : with_spaces(token.content);
  vocabulary.set(token.id, std::move(text), kAddedScore, control ? TokenType::kControl : TokenType::kUserDefined);
}

// Added tokens that cannot be in the list as the file says, of which one is shown.
class LeftOut {
 public:
  void add(std::string text) {
    if (n_++ == 0) first_ = std::move(text);
  }
  void note(std::vector<std::string>& notes) const {
    if (n_ > 0) notes.push_back(first_ + "; left out" + (n_ > 1 ? ", as are " + std::to_string(n_ - 1) + " more like it" : ""));
  }

 private:
  size_t n_ = 0;
  std::string first_;
};

// The added tokens that have a row of the embedding.
std::vector<AddedToken> with_rows(const std::vector<AddedToken>& added, const Vocabulary& vocabulary, std::vector<std::string>& notes) {
  std::vector<AddedToken> tokens;
  LeftOut left_out;
  for (const AddedToken& token : added) {
    if (vocabulary.has(token.id)) {
      tokens.push_back(token);
    } else {
      left_out.add("added token '" + printable(token.content, 40) + "' has id " + std::to_string(token.id) + ", but vocab_size is " +
                   std::to_string(vocabulary.size()));
    }
  }
  left_out.note(notes);
  return tokens;
}

// The added tokens of a tokenizer.json may repeat entries of its vocabulary, but not under another id.
void set_all_added(const TokenizerJson& json, bool spaces_marked, Vocabulary& vocabulary, std::vector<std::string>& notes) {
  std::unordered_map<std::string_view, int64_t> ids;
  for (const auto& [text, id] : json.vocab) ids.emplace(text, id);
  for (const AddedToken& token : with_rows(json.added, vocabulary, notes)) {
    const auto [it, is_new] = ids.emplace(token.content, token.id);
    if (it->second != token.id) {
      throw Error(ErrorKind::kFormat, "token '" + printable(token.content, 40) + "' has ids " + std::to_string(it->second) + " and " +
                                          std::to_string(token.id));
    }
    if (is_new && vocabulary.type(token.id) != TokenType::kUnused) {
      throw Error(ErrorKind::kFormat, "id " + std::to_string(token.id) + " belongs to '" + printable(vocabulary.text(token.id), 40) +
                                          "' and to '" + printable(token.content, 40) + "'");
    }
    set_added(token, spaces_marked, vocabulary);
  }
}

TextSet texts_of(const TokenizerJson& json) {
  TextSet texts;
  texts.reserve(json.vocab.size());
  for (const auto& [text, id] : json.vocab) texts.insert(text);
  return texts;
}

void check_merges(const TokenizerJson& json, const TextSet& texts) {
  std::string joined;
  for (size_t rank = 0; rank < json.merges.size(); ++rank) {
    const auto& [left, right] = json.merges[rank];
    joined.assign(left).append(right);
    for (const std::string* part : {&left, &right, static_cast<const std::string*>(&joined)}) {
      if (texts.contains(*part)) continue;
      throw Error(ErrorKind::kFormat, "merge " + std::to_string(rank) + " ('" + printable(left, 40) + "' + '" + printable(right, 40) +
                                          "') needs the token '" + printable(*part, 40) + "', which is not in the vocabulary");
    }
  }
}

// Engines join the neighbours with the best score first: where all scores are the same, words are cut anywhere. And texts are made of
// whole characters.
void check_pieces(const SentencePieceModel& model) {
  constexpr int32_t kNormal = 1;
  size_t n_long = 0;
  bool differ = false;
  float score = 0;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePieceModel::Piece& piece = model.pieces[id];
    if (find_invalid_utf8(piece.text)) throw Error(ErrorKind::kFormat, "piece " + std::to_string(id) + " is not UTF-8");
    if (piece.type != kNormal || utf8_sequence_length(piece.text, 0) == piece.text.size()) continue;
    differ = differ || (n_long > 0 && piece.score != score);
    score = piece.score;
    ++n_long;
  }
  if (n_long < 2 || differ) return;
  throw Error(ErrorKind::kFormat, "all " + std::to_string(n_long) + " pieces of several characters have the same score, " +
                                      std::to_string(score) + ": the order of merging is lost; take the tokenizer of the original model");
}

// Scores by text, and whether all merges of each token follow each other.
std::unordered_map<std::string, float> scores_of_merges(const TokenizerJson& json, bool& contiguous) {
  std::unordered_map<std::string, float> scores;
  std::string last;
  contiguous = true;
  for (const auto& [left, right] : json.merges) {
    std::string made = left + right;
    if (made == last) continue;
    const bool is_new = scores.emplace(made, -static_cast<float>(scores.size())).second;
    contiguous = contiguous && is_new;
    last = std::move(made);
  }
  return scores;
}

// Pairs of tokens that make a token without being a merge: engines with scores merge them all the same.
bool has_unlisted_pairs(const TokenizerJson& json, const TextSet& texts) {
  std::unordered_set<std::string> merges;
  for (const auto& [left, right] : json.merges) merges.insert(left + '\n' + right);
  for (const std::string_view text : texts) {
    if (is_byte_token(text)) continue;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const std::string_view left = text.substr(0, cut);
      const std::string_view right = text.substr(cut);
      if (!texts.contains(left) || !texts.contains(right)) continue;
      if (!merges.contains(std::string(left) + '\n' + std::string(right))) return true;
    }
  }
  return false;
}

}  // namespace

void fill_from_byte_level(const TokenizerJson& json, Vocabulary& vocabulary, std::vector<std::string>& notes) {
  check_merges(json, texts_of(json));
  for (const auto& [text, id] : json.vocab) vocabulary.set(id, text, 0.0f, TokenType::kNormal);
  set_all_added(json, false, vocabulary, notes);
}

void fill_from_metaspace(const TokenizerJson& json, Vocabulary& vocabulary, std::vector<std::string>& notes) {
  const TextSet texts = texts_of(json);
  check_merges(json, texts);
  bool contiguous = true;
  const std::unordered_map<std::string, float> scores = scores_of_merges(json, contiguous);
  const auto lowest = -static_cast<float>(scores.size());
  for (const auto& [text, id] : json.vocab) {
    const auto score = scores.find(text);
    const TokenType type = text == json.unk_token ? TokenType::kUnknown : is_byte_token(text) ? TokenType::kByte : TokenType::kNormal;
    vocabulary.set(id, text, score == scores.end() ? lowest : score->second, type);
  }
  set_all_added(json, true, vocabulary, notes);
  if (!contiguous || has_unlisted_pairs(json, texts)) {
    notes.emplace_back("the merges of tokenizer.json cannot be expressed exactly by GGUF's token scores; some texts may get other ids");
  }
}

void fill_from_sentencepiece(const SentencePieceModel& model, Vocabulary& vocabulary, std::vector<std::string>& notes) {
  if (model.algorithm != SentencePieceModel::Algorithm::kBpe) {
    throw Error(ErrorKind::kUnsupported,
                "SentencePiece model type " + std::to_string(static_cast<int>(model.algorithm)) + " is not supported; expected 2 (BPE)");
  }
  check_pieces(model);
  const auto n_pieces = static_cast<int64_t>(model.pieces.size());
  if (n_pieces > vocabulary.size()) {
    notes.push_back("tokenizer.model has " + std::to_string(n_pieces) + " pieces, but vocab_size is " + std::to_string(vocabulary.size()) +
                    "; the rest is left out");
  }
  for (int64_t id = 0; id < std::min(n_pieces, vocabulary.size()); ++id) {
    const SentencePieceModel::Piece& piece = model.pieces[static_cast<size_t>(id)];
    const auto type = static_cast<TokenType>(piece.type);
    vocabulary.set(id, type == TokenType::kUserDefined ? with_spaces(piece.text) : piece.text, piece.score, type);
  }
  if (model.has_charsmap) {
    notes.emplace_back("tokenizer.model normalises characters by a compiled table, which engines ignore for this type of tokenizer");
  }
}

void fill_padding(const std::vector<AddedToken>& added, bool spaces_marked, Vocabulary& vocabulary, std::vector<std::string>& notes) {
  LeftOut left_out;
  for (const AddedToken& token : with_rows(added, vocabulary, notes)) {
    if (vocabulary.type(token.id) == TokenType::kUnused) {
      set_added(token, spaces_marked, vocabulary);
      continue;
    }
    const std::string& text = vocabulary.text(token.id);
    if (text == token.content || text == with_spaces(token.content)) continue;
    left_out.add("added token '" + printable(token.content, 40) + "' has id " + std::to_string(token.id) + ", which is '" +
                 printable(text, 40) + "' in the vocabulary");
  }
  left_out.note(notes);
}

void replace_added(const std::vector<AddedToken>& added, Vocabulary& vocabulary, std::vector<std::string>& notes) {
  for (const AddedToken& token : with_rows(added, vocabulary, notes)) set_added(token, true, vocabulary);
}

std::vector<std::string> merge_texts(const std::vector<std::pair<std::string, std::string>>& merges) {
  const auto append = [](std::string_view part, std::string& out) {
    for (const char c : part) c == ' ' ? out.append("\u0120") : out.append(1, c);
  };
  std::vector<std::string> texts;
  texts.reserve(merges.size());
  for (const auto& [left, right] : merges) {
    std::string& text = texts.emplace_back();
    append(left, text);
    text += ' ';
    append(right, text);
  }
  return texts;
}

}  // namespace quern
