#pragma once

#include <cstdint>
#include <vector>

namespace quern {

// One row of floats per token: in memory, or in an unnamed temporary file (folder: TMPDIR or /var/tmp) when the budget is too small.
// Rows are read and written by explicit calls in either case, so that a file counts as resident only while it is copied.
// Different rows may be used from different threads.
class TokenStore {
 public:
  TokenStore() = default;
  TokenStore(int64_t n_rows, int64_t width, bool in_file);
  ~TokenStore();
  TokenStore(TokenStore&& other) noexcept;
  TokenStore& operator=(TokenStore&& other) noexcept;

  int64_t n_rows() const noexcept { return n_rows_; }
  int64_t width() const noexcept { return width_; }
  uint64_t resident_bytes() const noexcept { return rows_.size() * sizeof(float); }

  // Where rows from first_row on lie, to be used in place; nullptr when they are in a file.
  float* in_memory(int64_t first_row) noexcept { return fd_ < 0 ? rows_.data() + first_row * width_ : nullptr; }

  void read(int64_t first_row, int64_t n_rows, float* out) const;
  void write(int64_t first_row, int64_t n_rows, const float* rows);

 private:
  int64_t n_rows_ = 0;
  int64_t width_ = 0;
  int fd_ = -1;
  std::vector<float> rows_;
};

}  // namespace quern
