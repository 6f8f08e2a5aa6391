#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <variant>

#include "formats/gguf/metadata.h"

namespace quern::gguf {

// What reader and writer share about the file format. Source: ggml-org/ggml include/gguf.h (enum gguf_type).

inline constexpr std::string_view kMagic = "GGUF";
inline constexpr uint32_t kArrayType = 9;
inline constexpr const char* kAlignmentKey = "general.alignment";

// MetaValue lists the scalars in the order of the format's value types, without the array type, then their vectors.
inline constexpr size_t kScalarKinds = std::variant_size_v<MetaVariant> / 2;

// Value type of a MetaValue alternative; for a vector, of its elements.
constexpr uint32_t value_type_of_index(size_t variant_index) {
  const size_t kind = variant_index % kScalarKinds;
  return static_cast<uint32_t>(kind < kArrayType ? kind : kind + 1);
}

// Calls visit(std::type_identity<T>()) for the C++ type of a value type other than array; false when the number is none.
template <typename Visit>
bool visit_value_type(uint32_t type, const Visit& visit) {
  switch (type) {
    case 0:
      visit(std::type_identity<uint8_t>());
      return true;
    case 1:
      visit(std::type_identity<int8_t>());
      return true;
    case 2:
      visit(std::type_identity<uint16_t>());
      return true;
    case 3:
      visit(std::type_identity<int16_t>());
      return true;
    case 4:
      visit(std::type_identity<uint32_t>());
      return true;
    case 5:
      visit(std::type_identity<int32_t>());
      return true;
    case 6:
      visit(std::type_identity<float>());
      return true;
    case 7:
      visit(std::type_identity<bool>());
      return true;
    case 8:
      visit(std::type_identity<std::string>());
      return true;
    case 10:
      visit(std::type_identity<uint64_t>());
      return true;
    case 11:
      visit(std::type_identity<int64_t>());
      return true;
    case 12:
      visit(std::type_identity<double>());
      return true;
    default:
      return false;
  }
}

}  // namespace quern::gguf
