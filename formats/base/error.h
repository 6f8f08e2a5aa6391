#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace quern {

// What went wrong, as the caller must react to it. cli/main.cc maps kinds to exit codes: kGate 1, kUsage 2,
// kIo, kFormat and kUnsupported 3, kInternal 4, kInterrupted 130.
enum class ErrorKind { kGate, kUsage, kIo, kFormat, kUnsupported, kInternal, kInterrupted };

// The one exception type. A message is a single line that has the value found and the value expected; file, offset and
// tensor are added by whoever knows them while the exception unwinds, and only where they are still empty.
class Error : public std::exception {
 public:
  Error(ErrorKind kind, std::string message);

  Error& file(std::string_view path);
  Error& at(uint64_t offset);
  Error& tensor(std::string_view name);

  ErrorKind kind() const noexcept { return kind_; }
  const std::string& message() const noexcept { return message_; }  // without file, offset, tensor

  // "FILE: offset N: tensor 'NAME': MESSAGE", leaving out what is unknown. Control characters are escaped.
  const char* what() const noexcept override;

 private:
  void compose();

  ErrorKind kind_;
  std::string message_;
  std::string file_;
  std::string tensor_;
  std::optional<uint64_t> offset_;
  std::string what_;
};

// Text made safe for one line of a terminal: control characters and invalid UTF-8 become \xNN, long text is cut.
std::string printable(std::string_view text, size_t max_bytes = 200);

namespace detail {
[[noreturn]] void check_failed(const char* condition, const char* file, int line);
}  // namespace detail

// Our own mistakes, always on, outside hot loops.
// Outside data is checked with an Error instead.
#define QUERN_CHECK(condition) (static_cast<bool>(condition) ? void(0) : ::quern::detail::check_failed(#condition, __FILE__, __LINE__))

}  // namespace quern
