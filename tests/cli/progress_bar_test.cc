#include "cli/progress_bar.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <thread>

namespace quern::cli {
namespace {

// Runs `body` with a terminal of that many columns as its standard streams; what it wrote there.
template <typename Body>
std::string on_terminal(unsigned short columns, const char* term, const Body& body) {
  winsize size{24, columns, 0, 0};
  int terminal = -1;
  const pid_t child = forkpty(&terminal, nullptr, nullptr, &size);
  if (child == 0) {
    setenv("TERM", term, 1);
    body();
    _exit(0);
  }
  std::string output;
  char bytes[4096];
  for (ssize_t n = 0; (n = read(terminal, bytes, sizeof bytes)) > 0;) output.append(bytes, static_cast<size_t>(n));
  close(terminal);
  waitpid(child, nullptr, 0);
  return output;
}

void wait_for_draw() { std::this_thread::sleep_for(std::chrono::milliseconds(210)); }

void some_work() {
  ProgressBar bar;
  bar.begin("converting", 1000);
  bar.step("blk.12.attn_q_proj_of_a_\xC3\xA9l\xC3\xA8ve_with_a_long_name.weight");
  wait_for_draw();
  bar.advance(450);
  bar.note("a note");
  wait_for_draw();
  bar.advance(50);
}

// What a terminal shows: the widest line, and the lines that stay.
struct Shown {
  size_t widest = 0;
  std::vector<std::string> lines = {""};
};

Shown shown(std::string_view output) {
  constexpr std::string_view kWipe = "\r\033[K";
  Shown result;
  for (size_t i = 0; i < output.size(); ++i) {
    if (output.substr(i).starts_with(kWipe)) {
      result.lines.back().clear();
      i += kWipe.size() - 1;
    } else if (output.substr(i).starts_with("\r\n")) {
      result.lines.emplace_back();
      ++i;
    } else {
      result.lines.back() += output[i];
      result.widest = std::max(result.widest, width_of(result.lines.back()));
    }
  }
  return result;
}

class ProgressBarColumns : public testing::TestWithParam<unsigned short> {};

TEST_P(ProgressBarColumns, StaysOnOneLineAndLeavesNothingBehind) {
  const std::string output = on_terminal(GetParam(), "xterm", some_work);
  const Shown screen = shown(output);
  EXPECT_LT(screen.widest, GetParam()) << output;
  EXPECT_NE(output.find(" 45 %"), std::string::npos) << output;
  EXPECT_NE(output.find(" 50 %"), std::string::npos) << output;
  EXPECT_EQ(screen.lines, (std::vector<std::string>{"quern: a note", ""})) << output;
}

TEST_P(ProgressBarColumns, PrintsPlainLinesWhereTheCursorCannotMove) {
  const std::string output = on_terminal(GetParam(), "dumb", some_work);
  const Shown screen = shown(output);
  EXPECT_LT(screen.widest, GetParam()) << output;
  EXPECT_EQ(output.find('\033'), std::string::npos) << output;
  ASSERT_EQ(screen.lines.size(), 3U) << output;  // the second draw comes too soon after the first
  EXPECT_NE(screen.lines[0].find(" 45 %"), std::string::npos) << output;
}

INSTANTIATE_TEST_SUITE_P(Widths, ProgressBarColumns, testing::Values(40, 80, 200));

TEST(ProgressLine, LeavesOutMemoryThenTheBarThenTheTime) {
  const ProgressState state{"evaluating layer 3/4", 0.5, 10, 1'000'000'000};
  EXPECT_EQ(progress_line(state, 80), "evaluating layer 3/4 [============            ]  50 %  0:10 left  1.00 GB used");
  EXPECT_EQ(progress_line(state, 65), "evaluating layer 3/4 [============            ]  50 %  0:10 left");
  EXPECT_EQ(progress_line(state, 63), "evaluating layer 3/4  50 %  0:10 left");
  EXPECT_EQ(progress_line(state, 30), "evaluating layer 3/4  50 %");
  EXPECT_EQ(progress_line(state, 20), "evalu...er 3/4  50 %");
  for (size_t columns = 0; columns < 80; ++columns) EXPECT_LE(width_of(progress_line(state, columns)), columns);
}

TEST(Shortened, KeepsBothEndsAndWholeCharacters) {
  EXPECT_EQ(shortened("Model-Q4_K_M.gguf", 17), "Model-Q4_K_M.gguf");
  EXPECT_EQ(shortened("Model-Q4_K_M.gguf", 12), "Mode....gguf");
  EXPECT_EQ(shortened("\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9", 5), "\xC3\xA9...\xC3\xA9");
}

}  // namespace
}  // namespace quern::cli
