#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace quern::cli {

// What a stream is connected to.
enum class Screen {
  kNone,        // a file or a pipe
  kTypewriter,  // a terminal that can only add lines: TERM is "dumb", empty or not set
  kTerminal     // one that moves its cursor
};
Screen screen_of(int stream);

// Columns of the terminal behind the stream; where it does not say, those of the variable COLUMNS, else 80.
size_t columns_of(int stream);

// Columns that UTF-8 text takes, one for every character.
size_t width_of(std::string_view text) noexcept;

// The text in at most that many columns: what is left out in the middle becomes "...".
std::string shortened(std::string_view text, size_t columns);

}  // namespace quern::cli
