#include "cli/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace quern::cli {
namespace {

constexpr size_t kUsualColumns = 80;

bool continues_character(char byte) noexcept { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// Bytes that the first `columns` characters take.
size_t prefix_bytes(std::string_view text, size_t columns) {
  size_t i = 0;
  for (; i < text.size(); ++i) {
    if (!continues_character(text[i]) && columns-- == 0) break;
  }
  return i;
}

}  // namespace

Screen screen_of(int stream) {
  if (isatty(stream) != 1) return Screen::kNone;
  const char* name = std::getenv("TERM");
  const std::string_view terminal = name == nullptr ? "" : name;
  return terminal.empty() || terminal == "dumb" ? Screen::kTypewriter : Screen::kTerminal;
}

size_t columns_of(int stream) {
  winsize size = {};
  if (ioctl(stream, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const char* columns = std::getenv("COLUMNS");
  const long n = columns == nullptr ? 0 : std::strtol(columns, nullptr, 10);
  return n > 0 ? static_cast<size_t>(n) : kUsualColumns;
}

size_t width_of(std::string_view text) noexcept {
  return static_cast<size_t>(std::ranges::count_if(text, [](char byte) { return !continues_character(byte); }));
}

std::string shortened(std::string_view text, size_t columns) {
  constexpr std::string_view kCut = "...";
  const size_t width = width_of(text);
  if (width <= columns) return std::string(text);
  if (columns <= kCut.size()) return std::string(text.substr(0, prefix_bytes(text, columns)));
  const size_t kept = columns - kCut.size(), head = kept / 2;
  const size_t tail = prefix_bytes(text, width - (kept - head));
  return std::string(text.substr(0, prefix_bytes(text, head))) + std::string(kCut) + std::string(text.substr(tail));
}

}  // namespace quern::cli
