#pragma once

#include <concepts>
#include <limits>
#include <utility>

#include "formats/base/error.h"

namespace quern {

// Arithmetic on values that came from a file. `what` names the quantity in the error ("tensor size").
template <std::integral T>
T checked_mul(T a, T b, const char* what) {
  T result;
  if (__builtin_mul_overflow(a, b, &result)) throw Error(ErrorKind::kFormat, std::string(what) + " overflows 64 bits");
  return result;
}

template <std::integral T>
T checked_add(T a, T b, const char* what) {
  T result;
  if (__builtin_add_overflow(a, b, &result)) throw Error(ErrorKind::kFormat, std::string(what) + " overflows 64 bits");
  return result;
}

// Conversion that must not change the value.
template <std::integral To, std::integral From>
To checked_cast(From value, const char* what) {
  if (!std::in_range<To>(value)) {
    throw Error(ErrorKind::kFormat, std::string(what) + " " + std::to_string(value) + " is out of range");
  }
  return static_cast<To>(value);
}

constexpr uint64_t align_up(uint64_t value, uint64_t alignment) { return (value + alignment - 1) / alignment * alignment; }

}  // namespace quern
