#include "formats/gguf/metadata_text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <type_traits>

#include "formats/base/error.h"

namespace quern {
namespace {

constexpr size_t kShownElements = 6;    // of an array
constexpr size_t kShownTextBytes = 72;  // of a string

template <typename T>
std::string scalar_text(const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    return "\"" + printable(value, kShownTextBytes) + "\"";
  } else if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "false";
  } else {
    char text[32];
    const auto [end, error] = std::to_chars(text, text + sizeof text, value);  // the shortest text that reads back the same
    return {text, end};
  }
}

}  // namespace

std::string type_name(const MetaValue& value) {
  // In the order of MetaValue.
  constexpr std::array kNames = {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "str", "u64", "i64", "f64"};
  static_assert(kNames.size() * 2 == std::variant_size_v<MetaVariant>);
  const std::string name = kNames[value.index() % kNames.size()];
  return value.index() < kNames.size() ? name : "[" + name + "]";
}

std::string value_text(const MetaValue& value) {
  return std::visit(
      []<typename T>(const T& v) -> std::string {
        if constexpr (kIsArray<T>) {
          std::string text = "(" + std::to_string(v.size()) + ")";
          for (size_t i = 0; i < std::min(v.size(), kShownElements); ++i) {
            text += (i == 0 ? " " : ", ") + scalar_text(static_cast<const typename T::value_type&>(v[i]));
          }
          return v.size() > kShownElements ? text + ", ..." : text;
        } else {
          return scalar_text(v);
        }
      },
      value);
}

}  // namespace quern
