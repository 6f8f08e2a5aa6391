#include "convert/record/metadata_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>
#include <utility>

#include "formats/base/checked.h"
#include "formats/base/json_tree.h"

namespace quern {
namespace {

using nlohmann::json;

constexpr int64_t kMaxKeys = 1 << 14;  // as many as a header may have (docs/limits.md)

template <typename T>
constexpr const char* type_name() {
  if constexpr (std::is_same_v<T, bool>)
    return "bool";
  else if constexpr (std::is_same_v<T, std::string>)
    return "str";
  else if constexpr (std::is_same_v<T, float>)
    return "f32";
  else if constexpr (std::is_same_v<T, double>)
    return "f64";
  else if constexpr (std::is_same_v<T, uint8_t>)
    return "u8";
  else if constexpr (std::is_same_v<T, int8_t>)
    return "i8";
  else if constexpr (std::is_same_v<T, uint16_t>)
    return "u16";
  else if constexpr (std::is_same_v<T, int16_t>)
    return "i16";
  else if constexpr (std::is_same_v<T, uint32_t>)
    return "u32";
  else if constexpr (std::is_same_v<T, int32_t>)
    return "i32";
  else if constexpr (std::is_same_v<T, uint64_t>)
    return "u64";
  else
    return "i64";
}

template <typename T>
struct IsVector : std::false_type {};
template <typename T>
struct IsVector<std::vector<T>> : std::true_type {};

bool is_utf8(const std::string& text) {
  try {
    (void)json(text).dump();
    return true;
  } catch (const json::exception&) {
    return false;
  }
}

template <typename T>
json element_to_json(const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    return string_to_json(value);
  } else if constexpr (std::is_floating_point_v<T>) {
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
    return static_cast<double>(value);
  } else {
    return value;
  }
}

template <typename T>
T element_from_json(const json& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    return string_from_json(value);
  } else if constexpr (std::is_floating_point_v<T>) {
    if (value == "nan") return std::numeric_limits<T>::quiet_NaN();
    if (value == "inf") return std::numeric_limits<T>::infinity();
    if (value == "-inf") return -std::numeric_limits<T>::infinity();
    const double number = value.get<double>();
    if (std::abs(number) > static_cast<double>(std::numeric_limits<T>::max())) {
      throw Error(ErrorKind::kFormat, "metadata value " + value.dump() + " is out of range");
    }
    return static_cast<T>(number);
  } else if constexpr (std::is_same_v<T, bool>) {
    return value.get<bool>();
  } else if constexpr (std::is_unsigned_v<T>) {
    return checked_cast<T>(integer_from<uint64_t>(value), "metadata value");
  } else {
    return checked_cast<T>(integer_from<int64_t>(value), "metadata value");
  }
}

json entry_to_json(const Metadata::Entry& entry) {
  json out = {{"key", entry.first}};
  std::visit(
      [&](const auto& value) {
        using T = std::decay_t<decltype(value)>;
        if constexpr (IsVector<T>::value) {
          using E = typename T::value_type;
          out["type"] = std::string(type_name<E>()) + "[]";
          json elements = json::array();
          for (const auto& element : value) elements.push_back(element_to_json<E>(element));
          out["value"] = std::move(elements);
        } else {
          out["type"] = type_name<T>();
          out["value"] = element_to_json<T>(value);
        }
      },
      entry.second);
  return out;
}

// Tries the alternatives of MetaValue in turn until one has the name.
template <size_t I = 0>
MetaValue value_from_json(const std::string& type, const json& value) {
  if constexpr (I == std::variant_size_v<MetaVariant>) {
    throw Error(ErrorKind::kFormat, "unknown metadata type '" + printable(type) + "'");
  } else {
    using T = std::variant_alternative_t<I, MetaVariant>;
    if constexpr (IsVector<T>::value) {
      using E = typename T::value_type;
      if (type == std::string(type_name<E>()) + "[]") {
        T elements;
        for (const json& element : value) elements.push_back(element_from_json<E>(element));
        return elements;
      }
    } else if (type == type_name<T>()) {
      return element_from_json<T>(value);
    }
    return value_from_json<I + 1>(type, value);
  }
}

}  // namespace

json string_to_json(const std::string& text) {
  if (is_utf8(text)) return text;
  static constexpr char kHex[] = "0123456789abcdef";
  std::string hex;
  for (const char c : text) {
    hex += kHex[static_cast<unsigned char>(c) >> 4];
    hex += kHex[static_cast<unsigned char>(c) & 15];
  }
  return {{"hex", hex}};
}

std::string string_from_json(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  const std::string hex = value.at("hex").get<std::string>();
  std::string text;
  for (size_t i = 0; i < hex.size(); i += 2) {
    const char* const end = hex.data() + std::min(i + 2, hex.size());
    unsigned char byte = 0;
    if (std::from_chars(hex.data() + i, end, byte, 16).ptr != hex.data() + i + 2) {
      throw Error(ErrorKind::kFormat, "'" + printable(hex) + "' is not pairs of hex digits");
    }
    text += static_cast<char>(byte);
  }
  return text;
}

json metadata_to_json(const Metadata& metadata) {
  json out = json::array();
  for (const Metadata::Entry& entry : metadata.entries()) out.push_back(entry_to_json(entry));
  return out;
}

Metadata metadata_from_json(const json& entries) {
  Metadata metadata;
  if (std::cmp_greater(entries.size(), kMaxKeys)) {
    throw Error(ErrorKind::kFormat, std::to_string(entries.size()) + " metadata keys are more than " + std::to_string(kMaxKeys));
  }
  for (const json& entry : entries) {
    metadata.set(entry.at("key").get<std::string>(), value_from_json(entry.at("type").get<std::string>(), entry.at("value")));
  }
  return metadata;
}

}  // namespace quern
