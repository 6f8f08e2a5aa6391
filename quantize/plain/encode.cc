#include "quantize/plain/encode.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "formats/base/bytes.h"
#include "formats/base/error.h"
#include "formats/types/float_convert.h"
#include "formats/types/tensor.h"
#include "quantize/plain/encoders.h"

namespace quern {
namespace {

// Finite weights stay finite: what rounds to infinity becomes the largest value instead.
uint16_t finite_f16(float value) noexcept { return f32_to_f16(std::clamp(value, -65504.0f, 65504.0f)); }

uint16_t finite_bf16(float value) noexcept {
  constexpr float kLargest = 0x1.FEp127f;
  return f32_to_bf16(std::clamp(value, -kLargest, kLargest));
}

void encode_rows_F32(const float* x, int64_t n_rows, const float*, int64_t n_cols, Effort, std::byte* out) {
  std::memcpy(out, x, static_cast<size_t>(n_rows * n_cols) * sizeof(float));
}

void encode_rows_F16(const float* x, int64_t n_rows, const float*, int64_t n_cols, Effort, std::byte* out) {
  for (int64_t i = 0; i < n_rows * n_cols; ++i) store_le(out + 2 * i, finite_f16(x[i]));
}

void encode_rows_BF16(const float* x, int64_t n_rows, const float*, int64_t n_cols, Effort, std::byte* out) {
  for (int64_t i = 0; i < n_rows * n_cols; ++i) store_le(out + 2 * i, finite_bf16(x[i]));
}

struct Encoder {
  RowsEncoder encode_rows = nullptr;
  int revision = 0;
  uint64_t bytes = 0;
};

Encoder find_encoder(DType dtype) noexcept {
  switch (dtype) {
    case DType::F32:
      return {encode_rows_F32, 1, 0};
    case DType::F16:
      return {encode_rows_F16, 1, 0};
    case DType::BF16:
      return {encode_rows_BF16, 1, 0};
#define QUERN_ENCODER_CASE(name, revision, feedback, bytes) \
  case DType::name:                                         \
    return {encode_rows_##name, revision, bytes};
      QUERN_ENCODERS(QUERN_ENCODER_CASE)
#undef QUERN_ENCODER_CASE
    default:
      return {};
  }
}

}  // namespace

bool has_encoder(DType dtype) noexcept { return find_encoder(dtype).encode_rows != nullptr; }

int encoder_revision(DType dtype) noexcept { return find_encoder(dtype).revision; }

uint64_t encoder_bytes(DType dtype) noexcept { return find_encoder(dtype).bytes; }

void encode_rows(DType dtype, std::span<const float> x, int64_t n_rows, int64_t n_cols, std::span<const float> importance,
                 std::span<std::byte> out, Effort effort) {
  const RowsEncoder encode = find_encoder(dtype).encode_rows;
  if (encode == nullptr) throw Error(ErrorKind::kInternal, std::string(name_of(dtype)) + " has no encoder");
  QUERN_CHECK(n_rows >= 0 && n_cols >= 0 && n_cols % traits(dtype).block_weights == 0);
  QUERN_CHECK(x.size() == static_cast<size_t>(n_rows * n_cols));
  QUERN_CHECK(out.size() == static_cast<size_t>(n_rows) * static_cast<size_t>(row_size_bytes(dtype, n_cols)));
  QUERN_CHECK(importance.empty() || importance.size() == static_cast<size_t>(n_cols));
  encode(x.data(), n_rows, importance.empty() ? nullptr : importance.data(), n_cols, effort, out.data());
}

}  // namespace quern
