#include "formats/base/exact_sum.h"

#include <bit>
#include <cmath>

#include "formats/base/error.h"

// A double is a whole number of 53 bits times a power of two. Shifted to its place in a long row of 32-bit digits it touches three
// neighbours, and only these are added to. Digits are kept in 64 bits, so that 2^29 additions fit before carries must move; an addition
// therefore never runs along the number. After carry() the digits are those of the exact sum, whatever the summands were and in which order
// they came. value() adds them from the highest down: it rounds, but as a function of the digits alone.

namespace quern {
namespace {

constexpr uint64_t kDigitMask = 0xFFFFFFFF;
constexpr uint32_t kMaxPending = 1u << 29;  // times 2^34 stays below 2^64

}  // namespace

void ExactSum::add(double value) noexcept {
  const uint64_t bits = std::bit_cast<uint64_t>(value);
  const uint64_t exponent = bits >> 52;  // the sign is 0
  const uint64_t fraction = bits & ((uint64_t{1} << 52) - 1);
  const uint64_t mantissa = exponent == 0 ? fraction : fraction | uint64_t{1} << 52;
  const uint64_t position = exponent == 0 ? 0 : exponent - 1;  // of the mantissa's lowest bit, above 2^-1074
  const size_t digit = static_cast<size_t>(position / 32);
  const uint64_t shift = position % 32;
  const uint64_t low = (mantissa & kDigitMask) << shift;
  const uint64_t high = (mantissa >> 32) << shift;
  digits_[digit] += low & kDigitMask;
  digits_[digit + 1] += (low >> 32) + (high & kDigitMask);
  digits_[digit + 2] += high >> 32;
  if (++n_pending_ == kMaxPending) carry();
}

void ExactSum::add(const ExactSum& other) noexcept {
  ExactSum addend = other;
  addend.carry();
  carry();
  for (size_t i = 0; i < kDigits; ++i) digits_[i] += addend.digits_[i];
  n_pending_ = 1;
}

void ExactSum::carry() noexcept {
  uint64_t over = 0;
  for (uint64_t& digit : digits_) {
    digit += over;
    over = digit >> 32;
    digit &= kDigitMask;
  }
  n_pending_ = 0;
}

double ExactSum::value() const noexcept {
  ExactSum sum = *this;
  sum.carry();
  double total = 0;
  for (size_t i = kDigits; i-- > 0;) total += std::ldexp(static_cast<double>(sum.digits_[i]), static_cast<int>(32 * i) - 1074);
  return total;
}

std::vector<uint32_t> ExactSum::digits() const {
  ExactSum sum = *this;
  sum.carry();
  std::vector<uint32_t> digits(sum.digits_.begin(), sum.digits_.end());
  while (!digits.empty() && digits.back() == 0) digits.pop_back();
  return digits;
}

ExactSum ExactSum::from_digits(std::span<const uint32_t> digits) {
  QUERN_CHECK(digits.size() <= kDigits);
  ExactSum sum;
  for (size_t i = 0; i < digits.size(); ++i) sum.digits_[i] = digits[i];
  return sum;
}

}  // namespace quern
