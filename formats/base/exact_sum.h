#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace quern {

// The exact sum of non-negative doubles, as one long fixed-point number. Because nothing is rounded until value() is asked for,
// the result does not depend on the order or the grouping of the summands: error figures are the same for every number of threads,
// every chunk size and every division into parts. About 5 ns per summand; 560 bytes.
class ExactSum {
 public:
  static constexpr size_t kDigits = 68;  // 2098 bits of a double's range and room for 2^64 summands

  void add(double value) noexcept;  // finite and >= 0
  void add(const ExactSum& other) noexcept;
  double value() const noexcept;

  // The number as little-endian base-2^32 digits, lowest (2^-1074) first, without trailing zeros; and back from at most
  // kDigits of them.
  std::vector<uint32_t> digits() const;
  static ExactSum from_digits(std::span<const uint32_t> digits);

 private:
  void carry() noexcept;

  std::array<uint64_t, kDigits> digits_{};  // 32 bits each, the upper half collects carries
  uint32_t n_pending_ = 0;                  // additions since the last carry(); each leaves less than 2^34 in a digit
};

}  // namespace quern
