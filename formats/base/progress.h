#pragma once

#include <cstdint>
#include <string_view>

namespace quern {

// What a library call tells about its progress. Libraries never print: the command line passes an implementation that draws
// a bar on a terminal and is silent in a pipe. Calls may come from any thread.
class Progress {
 public:
  virtual ~Progress() = default;

  // A new phase of `total` units (bytes for convert, tokens x layers for the runtime).
  virtual void begin(std::string_view phase, uint64_t total) = 0;
  virtual void advance(uint64_t done) = 0;
  // Which step of the phase is being worked on ("layer 12/61").
  virtual void step(std::string_view text) = 0;
  virtual void end() = 0;

  // One line for people between phases: what was found or decided, and what they should not overlook.
  virtual void note(std::string_view text) = 0;
  virtual void warn(std::string_view text) = 0;
};

// A Progress that shows nothing.
Progress& no_progress();

// Set by the signal handler of the command line; long loops call throw_if_interrupted() once per chunk.
void request_interrupt() noexcept;
void throw_if_interrupted();  // Error(kInterrupted)

}  // namespace quern
