#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace quern {

// Floats on a cache line boundary that are written before they are read: unlike a vector, growing clears nothing and keeps nothing.
class FloatBuffer {
 public:
  FloatBuffer() = default;
  explicit FloatBuffer(int64_t n) { resize(n); }

  // At least n floats, of any value. What was there is lost when the buffer grows.
  float* resize(int64_t n) {
    if (n > capacity_) {
      constexpr size_t kLine = 64;
      const size_t size = (static_cast<size_t>(n) * sizeof(float) + kLine - 1) / kLine * kLine;
      data_.reset();
      data_.reset(static_cast<float*>(std::aligned_alloc(kLine, size)));
      if (!data_) throw std::bad_alloc();
      capacity_ = n;
    }
    return data_.get();
  }

  float* data() noexcept { return data_.get(); }
  const float* data() const noexcept { return data_.get(); }

 private:
  struct Free {
    void operator()(float* p) const noexcept { std::free(p); }
  };
  std::unique_ptr<float, Free> data_;
  int64_t capacity_ = 0;
};

}  // namespace quern
