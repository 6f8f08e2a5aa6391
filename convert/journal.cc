#include "convert/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "formats/base/error.h"

namespace quern {
namespace {

Error io_error(const std::filesystem::path& path, const char* what) {
  return std::move(Error(ErrorKind::kIo, std::string(what) + ": " + std::strerror(errno)).file(path.string()));
}

}  // namespace

Journal::Journal(std::filesystem::path path, const std::string& header) : path_(std::move(path)) {
  fd_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (fd_ < 0) throw io_error(path_, "cannot create the journal");
  append(header);
}

Journal::~Journal() {
  unlink(path_.c_str());
  close(fd_);
}

void Journal::record(int64_t n_chunks, uint64_t tensor_bytes) {
  append("{\"chunks\": " + std::to_string(n_chunks) + ", \"tensor_bytes\": " + std::to_string(tensor_bytes) + "}");
}

void Journal::append(const std::string& line) {
  const std::string text = line + "\n";
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = write(fd_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw io_error(path_, "cannot write the journal");
    done += static_cast<size_t>(n);
  }
}

}  // namespace quern
