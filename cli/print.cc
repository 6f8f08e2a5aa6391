#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <numeric>
#include <string>
#include <vector>

#include "cli/cli.h"
#include "cli/terminal.h"
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

namespace {

constexpr size_t kLeastColumns = 12;  // of what is shortened in a table

std::vector<size_t> widths_of(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  return widths;
}

// The first column to the left, the others to the right, and no blanks at the end.
std::string table_line(const std::vector<std::string>& row, const std::vector<size_t>& widths) {
  std::string line;
  for (size_t i = 0; i < row.size(); ++i) {
    const std::string fill(widths[i] - width_of(row[i]), ' ');
    line += i == 0 ? row[i] + fill : "  " + fill + row[i];
  }
  return line.substr(0, line.find_last_not_of(' ') + 1) + '\n';
}

}  // namespace

void print_error(std::string_view message) { std::cerr << "quern: error: " << message << '\n'; }
void print_warning(std::string_view message) { std::cerr << "quern: warning: " << message << '\n'; }

void be_quiet() { std::clog.rdbuf(nullptr); }
bool is_quiet() { return std::clog.rdbuf() == nullptr; }

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

std::string format_table(std::vector<std::vector<std::string>> rows, size_t columns) {
  std::vector<size_t> widths = widths_of(rows);
  const size_t total = std::accumulate(widths.begin(), widths.end(), 2 * (std::max<size_t>(widths.size(), 1) - 1));
  if (total > columns) {
    const auto widest = std::ranges::max_element(widths);
    const size_t room = *widest - std::min(*widest, total - columns), i = static_cast<size_t>(widest - widths.begin());
    for (auto& row : rows) {
      if (i < row.size()) row[i] = shortened(row[i], std::max(room, kLeastColumns));
    }
    widths = widths_of(rows);
  }
  std::string out;
  for (const auto& row : rows) out += table_line(row, widths);
  return out;
}

std::string format_table(std::vector<std::vector<std::string>> rows) {
  const bool is_screen = screen_of(STDOUT_FILENO) != Screen::kNone;
  return format_table(std::move(rows), is_screen ? columns_of(STDOUT_FILENO) : std::string::npos);
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
