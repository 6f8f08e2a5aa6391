#include "formats/base/resources.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <optional>

#include "formats/base/error.h"

namespace quern {
namespace {

constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();

constexpr std::string_view kUnitLetters = "KMGT";

char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }

// Bytes per unit: "" and "B" 1, "K" and "KB" 1000, "KIB" 1024, and so on. Empty when it is none.
std::optional<uint64_t> unit_bytes(std::string_view unit) {
  std::string name;
  for (const char c : unit) name += upper(c);
  if (name.empty() || name == "B") return 1;
  const size_t power = kUnitLetters.find(name[0]);
  if (power == std::string_view::npos) return std::nullopt;
  const std::string rest = name.substr(1);
  if (!rest.empty() && rest != "B" && rest != "IB") return std::nullopt;
  uint64_t bytes = 1;
  for (size_t i = 0; i <= power; ++i) bytes *= rest == "IB" ? 1024 : 1000;
  return bytes;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

uint64_t parse_size(std::string_view text) {
  const auto fail = [&](const char* why) -> Error {
    return Error(ErrorKind::kUsage,
                 "size '" + std::string(text) + "' " + why + "; write it like 45GB (45 * 10^9), 45GiB (45 * 2^30) or 45000000000");
  };
  // Enough for any size in practice, and the products below stay far from 128 bits.
  if (text.empty() || text.size() > 40) throw fail("is not a number with a unit");
  using Wide = unsigned __int128;
  Wide digits = 0;
  Wide divisor = 1;
  size_t i = 0;
  size_t n_digits = 0;
  bool fraction = false;
  for (; i < text.size() && (is_digit(text[i]) || (text[i] == '.' && !fraction)); ++i) {
    if (text[i] == '.') {
      fraction = true;
      continue;
    }
    if (++n_digits > 20) throw fail("has too many digits");
    digits = digits * 10 + static_cast<Wide>(text[i] - '0');
    if (fraction) divisor *= 10;
  }
  if (n_digits == 0 || text[i - 1] == '.') throw fail("is not a number with a unit");
  while (i < text.size() && text[i] == ' ') ++i;
  const std::optional<uint64_t> unit = unit_bytes(text.substr(i));
  if (!unit) throw fail("is not a number with a unit");
  if (fraction && *unit == 1) throw fail("is a fraction of a byte");
  const Wide bytes = digits * *unit / divisor;
  if (bytes > kUnlimited) throw fail("is larger than 64 bits");
  return static_cast<uint64_t>(bytes);
}

std::string format_size(uint64_t bytes) {
  if (bytes < 1000) return std::to_string(bytes) + " B";
  constexpr const char* kUnits[] = {"B", "KB", "MB", "GB", "TB", "PB", "EB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 999.95) {  // what would round to 1000.0
    value /= 1000;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, value < 9.995 ? "%.2f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

uint64_t default_memory_budget() { return std::min(uint64_t{2} << 30, available_memory_bytes() / 2); }

}  // namespace quern
