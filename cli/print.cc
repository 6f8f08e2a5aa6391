#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "cli/cli.h"
#include "formats/base/resources.h"

namespace quern::cli {

int exit_code(ErrorKind kind) noexcept {
  switch (kind) {
    case ErrorKind::kGate:
      return 1;
    case ErrorKind::kUsage:
      return 2;
    case ErrorKind::kIo:
    case ErrorKind::kFormat:
    case ErrorKind::kUnsupported:
      return 3;
    case ErrorKind::kInternal:
      return 4;
    case ErrorKind::kInterrupted:
      return 130;
  }
  return 4;
}

void print_error(std::string_view message) { std::cerr << "quern: error: " << message << '\n'; }
void print_warning(std::string_view message) { std::cerr << "quern: warning: " << message << '\n'; }

std::string at_least_one(const std::string& text) {
  int64_t n = 0;
  return CLI::detail::lexical_cast(text, n) && n >= 1 ? "" : "must be a number, 1 or more";
}

std::string a_size(const std::string& text) {
  try {
    parse_size(text);
  } catch (const Error& e) {
    return e.message();
  }
  return "";
}

std::string a_limit(const std::string& text) {
  double limit = 0;
  return CLI::detail::lexical_cast(text, limit) && std::isfinite(limit) && limit >= 0 ? "" : "must be a number, 0 or more";
}

std::string format_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string fill(widths[i] - row[i].size(), ' ');
      out += i == 0 ? row[i] + (row.size() > 1 ? fill : "") : "  " + fill + row[i];
    }
    out += '\n';
  }
  return out;
}

std::string amount_read(uint64_t bytes_read, uint64_t stored_bytes) {
  if (bytes_read <= stored_bytes) return format_size(bytes_read) + " of " + format_size(stored_bytes);
  const double times = static_cast<double>(bytes_read) / static_cast<double>(std::max<uint64_t>(stored_bytes, 1));
  return format_size(bytes_read) + " (of " + format_size(stored_bytes) + ", " + number("%.1f", times) + " times)";
}

std::string number(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

}  // namespace quern::cli
