#include "runtime/pass/token_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "formats/base/error.h"
#include "formats/base/file.h"

namespace quern {
namespace {

int open_unnamed_file() {
  std::string path = temporary_root() / "quern-XXXXXX";
  const int fd = mkstemp(path.data());
  if (fd < 0) throw Error(ErrorKind::kIo, std::string("cannot create a temporary file: ") + std::strerror(errno)).file(path);
  unlink(path.c_str());
  return fd;
}

template <typename Transfer>
void transfer_all(size_t size, off_t offset, const char* verb, Transfer transfer) {
  for (size_t done = 0; done < size;) {
    const ssize_t n = transfer(done, size - done, offset + static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw Error(ErrorKind::kIo, std::string("cannot ") + verb + " the spill file: " + std::strerror(n < 0 ? errno : ENOSPC));
    done += static_cast<size_t>(n);
  }
}

}  // namespace

TokenStore::TokenStore(int64_t n_rows, int64_t width, bool in_file) : n_rows_(n_rows), width_(width) {
  if (in_file) {
    fd_ = open_unnamed_file();
  } else {
    rows_.resize(static_cast<size_t>(n_rows * width));
  }
}

TokenStore::~TokenStore() {
  if (fd_ >= 0) close(fd_);
}

TokenStore::TokenStore(TokenStore&& other) noexcept { *this = std::move(other); }

TokenStore& TokenStore::operator=(TokenStore&& other) noexcept {
  std::swap(n_rows_, other.n_rows_);
  std::swap(width_, other.width_);
  std::swap(fd_, other.fd_);
  std::swap(rows_, other.rows_);
  return *this;
}

void TokenStore::read(int64_t first_row, int64_t n_rows, float* out) const {
  QUERN_CHECK(first_row >= 0 && first_row + n_rows <= n_rows_);
  const auto offset = static_cast<size_t>(first_row * width_), size = static_cast<size_t>(n_rows * width_);
  if (fd_ < 0) {
    std::memcpy(out, rows_.data() + offset, size * sizeof(float));
    return;
  }
  transfer_all(size * sizeof(float), static_cast<off_t>(offset * sizeof(float)), "read",
               [&](size_t done, size_t n, off_t at) { return pread(fd_, reinterpret_cast<char*>(out) + done, n, at); });
}

void TokenStore::write(int64_t first_row, int64_t n_rows, const float* rows) {
  QUERN_CHECK(first_row >= 0 && first_row + n_rows <= n_rows_);
  const auto offset = static_cast<size_t>(first_row * width_), size = static_cast<size_t>(n_rows * width_);
  if (fd_ < 0) {
    std::memcpy(rows_.data() + offset, rows, size * sizeof(float));
    return;
  }
  transfer_all(size * sizeof(float), static_cast<off_t>(offset * sizeof(float)), "write",
               [&](size_t done, size_t n, off_t at) { return pwrite(fd_, reinterpret_cast<const char*>(rows) + done, n, at); });
}

}  // namespace quern
