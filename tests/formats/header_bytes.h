#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "formats/base/error.h"
#include "tests/formats/builders.h"

namespace quern::test {

// Whatever one of the first n_header_bytes of a good file becomes, `parse` either throws a one-line Error or returns ranges inside
// the file.
template <typename Parse>
void expect_every_byte_checked(const Bytes& good, uint64_t n_header_bytes, Parse parse) {
  for (size_t i = 0; i < n_header_bytes; ++i) {
    for (int value = 0; value < 256; ++value) {
      Bytes bad = good;
      bad[i] = static_cast<std::byte>(value);
      try {
        for (const TensorInfo& tensor : parse(bad).tensors) ASSERT_LE(tensor.file_offset + tensor.size_bytes, bad.size());
      } catch (const Error& e) {
        ASSERT_EQ(std::string(e.what()).find('\n'), std::string::npos);
      }
    }
  }
}

}  // namespace quern::test
