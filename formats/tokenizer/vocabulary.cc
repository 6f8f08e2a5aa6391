#include "formats/tokenizer/vocabulary.h"

#include "formats/base/error.h"

namespace quern {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 22;
constexpr float kPaddingScore = -10000.0f;

}  // namespace

bool is_byte_token(std::string_view text) {
  return text.size() == 6 && text.starts_with("<0x") && text.ends_with(">") &&
         text.substr(3, 2).find_first_not_of("0123456789ABCDEFabcdef") == std::string_view::npos;
}

Vocabulary::Vocabulary(int64_t vocab_size) {
  if (vocab_size < 1 || vocab_size > kMaxTokens) {
    throw Error(ErrorKind::kFormat, "vocab_size is " + std::to_string(vocab_size) + "; expected 1 to " + std::to_string(kMaxTokens));
  }
  const auto n = static_cast<size_t>(vocab_size);
  tokens_.reserve(n);
  for (size_t i = 0; i < n; ++i) tokens_.push_back("[PAD" + std::to_string(i) + "]");
  scores_.assign(n, kPaddingScore);
  types_.assign(n, TokenType::kUnused);
}

void Vocabulary::set(int64_t id, std::string text, float score, TokenType type) {
  if (!has(id)) {
    throw Error(ErrorKind::kFormat,
                "token '" + printable(text, 40) + "' has id " + std::to_string(id) + ", but vocab_size is " + std::to_string(size()));
  }
  const auto i = static_cast<size_t>(id);
  tokens_[i] = std::move(text);
  scores_[i] = score;
  types_[i] = type;
}

int64_t Vocabulary::find(std::string_view text) const {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (types_[i] != TokenType::kUnused && tokens_[i] == text) return static_cast<int64_t>(i);
  }
  return -1;
}

std::vector<int32_t> Vocabulary::types() const {
  std::vector<int32_t> out;
  out.reserve(types_.size());
  for (const TokenType type : types_) out.push_back(static_cast<int32_t>(type));
  return out;
}

}  // namespace quern
