#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "formats/base/error.h"

// The entry point that libFuzzer calls; the replay program calls it once per corpus file. Returns 0. An input may only end in a
// normal return or in quern::Error; everything else is a finding.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace quern::test {

inline std::span<const std::byte> input_bytes(const uint8_t* data, size_t size) { return std::as_bytes(std::span(data, size)); }
inline std::string_view input_text(const uint8_t* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

// Runs `read`; an Error is an answer, unless it says that the mistake is ours.
template <typename Read>
void accept_errors(const Read& read) {
  try {
    read();
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kInternal) throw;
  }
}

// The input as a file in memory, for readers of files that are too large for memory, or that a library opens by its path.
class InputAsFile {
 public:
  InputAsFile(const uint8_t* data, size_t size) {
    const int fd = mkstemp(path_.data());
    if (fd < 0 || write(fd, data, size) != static_cast<ssize_t>(size) || close(fd) != 0) throw std::runtime_error("no file in memory");
  }
  ~InputAsFile() { unlink(path_.c_str()); }
  InputAsFile(const InputAsFile&) = delete;
  InputAsFile& operator=(const InputAsFile&) = delete;

  std::filesystem::path path() const { return path_; }

 private:
  std::string path_ = "/dev/shm/quern-fuzz-XXXXXX";
};

}  // namespace quern::test
