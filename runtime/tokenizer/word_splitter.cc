#include "runtime/tokenizer/word_splitter.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <string>

#include "formats/base/error.h"

// Expressions are compiled once, when the splitter is made. A text is one piece in the beginning, and every expression cuts all pieces that
// the ones before it left, as views into the text. Each match begins behind the last one, and an empty one would end the pass. What a
// single match may cost is limited in proportion to the text, because backtracking over a hostile text could otherwise take as good as
// forever.

namespace quern {
namespace {

constexpr std::string_view kWhiteSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

// The expression with \s and \S spelled out by their definition, inside and outside of classes, and with \s+$ in its linear form.
std::string adapted(std::string_view expression) {
  if (expression == R"(\s+$)") return adapted(R"((?<!\s)\s++$)");
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    const char next = i + 1 < expression.size() ? expression[i + 1] : '\0';
    if (c == '\\' && (next == 's' || next == 'S')) {
      QUERN_CHECK(!(in_class && next == 'S'));
      if (!in_class) out += next == 's' ? "[" : "[^";
      out += kWhiteSpace;
      if (!in_class) out += ']';
      ++i;
    } else if (c == '\\') {
      out += c;
      out += next;
      ++i;
    } else {
      if (c == '[') in_class = true;
      if (c == ']') in_class = false;
      out += c;
    }
  }
  return out;
}

pcre2_code* compile(std::string_view expression) {
  const std::string pattern = adapted(expression);
  int code = 0;
  size_t offset = 0;
  pcre2_code* compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                       PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &code, &offset, nullptr);
  if (compiled == nullptr) {
    throw Error(ErrorKind::kInternal,
                "pre-tokenizer expression '" + printable(pattern) + "' fails to compile at " + std::to_string(offset));
  }
  pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);  // without it the same matches, slower
  return compiled;
}

template <auto free>
struct Free {
  template <typename T>
  void operator()(T* p) const noexcept {
    free(p);
  }
};

// What matching one expression needs besides the text.
struct Matcher {
  Matcher(const pcre2_code* compiled, size_t text_size)
      : code(compiled), data(pcre2_match_data_create(1, nullptr)), context(pcre2_match_context_create(nullptr)) {
    QUERN_CHECK(data != nullptr && context != nullptr);
    // Every expression of the table is linear in the length of a run; the factor leaves room for alternatives that fail first.
    const uint64_t limit = std::min<uint64_t>(uint64_t{1000000} + uint64_t{64} * text_size, UINT32_MAX);
    pcre2_set_match_limit(context.get(), static_cast<uint32_t>(limit));
  }

  // The first match at or after `from`; false if there is none.
  bool find(std::string_view text, size_t from, size_t& begin, size_t& end) const {
    const int result =
        pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from, PCRE2_NO_UTF_CHECK, data.get(), context.get());
    if (result == PCRE2_ERROR_NOMATCH) return false;
    if (result < 0) {
      throw Error(ErrorKind::kUnsupported, "splitting a text of " + std::to_string(text.size()) + " bytes into words fails (PCRE2 error " +
                                               std::to_string(result) + ")");
    }
    const size_t* range = pcre2_get_ovector_pointer(data.get());
    begin = range[0];
    end = range[1];
    return true;
  }

  const pcre2_code* code;
  std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>> data;
  std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>> context;
};

void split_piece(const Matcher& matcher, std::string_view piece, std::vector<std::string_view>& out) {
  size_t done = 0;
  size_t begin = 0;
  size_t end = 0;
  while (done < piece.size() && matcher.find(piece, done, begin, end)) {
    if (begin == end) break;  // no expression of the table matches nothing
    if (begin > done) out.push_back(piece.substr(done, begin - done));
    out.push_back(piece.substr(begin, end - begin));
    done = end;
  }
  if (done < piece.size()) out.push_back(piece.substr(done));
}

}  // namespace

void WordSplitter::FreeCode::operator()(pcre2_real_code_8* code) const noexcept { pcre2_code_free(code); }

WordSplitter::WordSplitter(std::span<const std::string_view> expressions) {
  for (const std::string_view expression : expressions) codes_.emplace_back(compile(expression));
}

void WordSplitter::split(std::string_view text, std::vector<std::string_view>& words) const {
  std::vector<std::string_view> pieces{text};
  std::vector<std::string_view> next;
  for (const auto& code : codes_) {
    const Matcher matcher(code.get(), text.size());
    next.clear();
    for (const std::string_view piece : pieces) split_piece(matcher, piece, next);
    pieces.swap(next);
  }
  words.insert(words.end(), pieces.begin(), pieces.end());
}

}  // namespace quern
