#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace quern {

static_assert(std::endian::native == std::endian::little, "quern reads and writes little-endian files by memcpy");
// clang-format off
template <typename T>  // clang-format 14 takes the next line for an expression
  requires std::is_trivially_copyable_v<T>
T load_le(const void* p) noexcept {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <typename T>
  requires std::is_trivially_copyable_v<T>
void store_le(void* p, T value) noexcept {
  std::memcpy(p, &value, sizeof value);
}
// clang-format on
}  // namespace quern
