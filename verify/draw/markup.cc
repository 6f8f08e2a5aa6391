#include "verify/draw/markup.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

// One invalid byte makes an XML parser refuse a whole page, so UTF-8 is decoded strictly: overlong forms, surrogates and what lies beyond
// U+10FFFF count as invalid. An invalid byte is replaced alone and decoding goes on with the next, so that the text behind it is kept.

namespace quern {
namespace {

constexpr uint32_t kReplacement = 0xFFFD;

// The code point at text[i], moving i behind it; one byte of what is not UTF-8 counts as a replacement character.
uint32_t next_code_point(std::string_view text, size_t& i) {
  const auto byte = [&](size_t k) { return k < text.size() ? static_cast<uint8_t>(text[k]) : uint8_t{0}; };
  const uint8_t lead = byte(i);
  const size_t n = lead < 0x80                   ? 1
                   : lead >= 0xC2 && lead < 0xE0 ? 2
                   : lead >= 0xE0 && lead < 0xF0 ? 3
                   : lead >= 0xF0 && lead < 0xF5 ? 4
                                                 : 0;
  if (n <= 1) {
    ++i;
    return n == 1 ? lead : kReplacement;
  }
  uint32_t code = lead & (0xFFU >> (n + 1));
  for (size_t k = 1; k < n; ++k) {
    if ((byte(i + k) & 0xC0) != 0x80) {
      ++i;
      return kReplacement;
    }
    code = code << 6 | (byte(i + k) & 0x3FU);
  }
  constexpr std::array<uint32_t, 5> kSmallest = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kSmallest[n] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
    ++i;
    return kReplacement;
  }
  i += n;
  return code;
}

bool is_unwritable(uint32_t code) {
  const bool control = code < 0x20 || (code >= 0x7F && code < 0xA0);
  const bool directional = (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069) || code == 0x200E || code == 0x200F;
  return control || directional || (code & 0xFFFE) == 0xFFFE;
}

std::string without_trailing_zeros(std::string text) {
  if (text.find('.') == std::string::npos) return text;
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text;
}

}  // namespace

std::string escape_markup(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t start = i;
    const uint32_t code = next_code_point(text, i);
    switch (code) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '\n':
      case '\t':
        out += ' ';
        break;
      default:
        if (code == kReplacement || is_unwritable(code)) {
          out += "\uFFFD";
        } else {
          out += text.substr(start, i - start);
        }
    }
  }
  return out;
}

std::string shorten(std::string_view text, size_t max_characters) {
  std::vector<size_t> starts;
  for (size_t i = 0; i < text.size(); next_code_point(text, i)) starts.push_back(i);
  if (starts.size() <= max_characters || max_characters < 3) return std::string(text);
  const size_t head = (max_characters - 1) / 2, tail = max_characters - 1 - head;
  return std::string(text.substr(0, starts[head])) + "…" + std::string(text.substr(starts[starts.size() - tail]));
}

std::string ten_to_the(int exponent) {
  static constexpr std::array<const char*, 10> kDigits = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  std::string out = exponent < 0 ? "10⁻" : "10";
  for (const char digit : std::to_string(std::abs(exponent))) out += kDigits[static_cast<size_t>(digit - '0')];
  return out;
}

std::string readable_number(double value, int digits) {
  if (std::isnan(value)) return "not a number";
  if (std::isinf(value)) return value < 0.0 ? "−∞" : "∞";
  if (value == 0.0) return "0";
  char text[64];
  std::snprintf(text, sizeof text, "%.*e", digits - 1, std::fabs(value));  // rounds first: 9.99 with two digits has exponent 1
  const std::string scientific = text;
  const size_t e = scientific.find('e');
  const int exponent = std::atoi(scientific.c_str() + e + 1);
  std::string out = value < 0.0 ? "−" : "";
  if (exponent < -4 || exponent >= 6) {
    const std::string mantissa = without_trailing_zeros(scientific.substr(0, e));
    return out + (mantissa == "1" ? "" : mantissa + "·") + ten_to_the(exponent);
  }
  std::snprintf(text, sizeof text, "%.*f", std::max(0, digits - 1 - exponent), std::fabs(value));
  return out + without_trailing_zeros(text);
}

}  // namespace quern
