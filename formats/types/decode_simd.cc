// Decoders, compiled once per CPU target: mostly plain loops, which the compiler makes vectors of.

#include "formats/types/decode.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "formats/base/bytes.h"
#include "formats/base/error.h"
#include "formats/types/blocks.h"
#include "formats/types/float_convert.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "formats/types/decode_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "formats/types/decode_k-inl.h"
#include "formats/types/decode_lattice-inl.h"
#include "formats/types/decode_small-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

inline bool is_finite_f16(uint16_t bits) noexcept { return (bits & 0x7C00) != 0x7C00; }

// NVFP4 scales have no infinity, and their NaN code decodes to 0.
template <typename Block>
bool has_finite_scales(const Block& block) noexcept {
  bool finite = true;
  if constexpr (requires { block.d; }) finite = finite && is_finite_f16(block.d);
  if constexpr (requires { block.dmin; }) finite = finite && is_finite_f16(block.dmin);
  if constexpr (requires { block.m; }) finite = finite && is_finite_f16(block.m);
  return finite;
}
inline bool has_finite_scales(const BlockMXFP4& block) noexcept { return block.e != 255; }
inline bool has_finite_scales(const BlockIQ1_M& block) noexcept { return is_finite_f16(scale_bits(block)); }

// Unblocked types: bits of type Bits, one conversion each.
template <typename Bits, typename Convert>
void decode_each(std::span<const std::byte> in, std::span<float> out, Convert convert) noexcept {
  for (size_t i = 0; i < out.size(); ++i) out[i] = convert(load_le<Bits>(in.data() + i * sizeof(Bits)));
}

// Blocks are copied some at a time, because a vector load from bytes that were stored a moment ago in other pieces has to wait.
template <typename Block>
void decode_all(std::span<const std::byte> in, std::span<float> out) noexcept {
  constexpr size_t kBatch = std::max<size_t>(1, 1024 / sizeof(Block));
  Block blocks[kBatch];
  for (float* to = out.data(); !in.empty();) {
    const size_t n = std::min(kBatch, in.size() / sizeof(Block));
    std::memcpy(blocks, in.data(), n * sizeof(Block));
    for (size_t i = 0; i < n; ++i, to += kBlockWeights<Block>) decode_block(blocks[i], to);
    in = in.subspan(n * sizeof(Block));
  }
}

template <typename Block>
int64_t first_nonfinite_scale(std::span<const std::byte> in) noexcept {
  for (size_t i = 0; i < in.size() / sizeof(Block); ++i) {
    if (!has_finite_scales(load_le<Block>(in.data() + i * sizeof(Block)))) return static_cast<int64_t>(i);
  }
  return -1;
}

// Unblocked types: the values with all bits of `mask` set are the ones that are not finite. The search is in two steps because the
// first, without an exit, vectorises, and almost all data pass it.
template <typename Bits>
int64_t first_with_bits(std::span<const std::byte> in, Bits mask) noexcept {
  constexpr size_t kPiece = 1024;
  const size_t n = in.size() / sizeof(Bits);
  const auto has_bits = [&](size_t i) { return (load_le<Bits>(in.data() + i * sizeof(Bits)) & mask) == mask; };
  for (size_t first = 0; first < n; first += kPiece) {
    const size_t end = std::min(first + kPiece, n);
    Bits any = 0;
    for (size_t i = first; i < end; ++i) any = static_cast<Bits>(any | static_cast<Bits>(has_bits(i)));
    if (any == 0) continue;
    while (!has_bits(first)) ++first;
    return static_cast<int64_t>(first);
  }
  return -1;
}

inline float same(float value) noexcept { return value; }

void decode(DType dtype, std::span<const std::byte> blocks, std::span<float> out) {
  switch (dtype) {
    case DType::F32:
      return decode_each<float>(blocks, out, same);
    case DType::F16:
      return decode_each<uint16_t>(blocks, out, f16_to_f32);
    case DType::BF16:
      return decode_each<uint16_t>(blocks, out, bf16_to_f32);
    case DType::F8_E4M3:
      return decode_each<uint8_t>(blocks, out, e4m3_to_f32);
    case DType::F8_E5M2:
      return decode_each<uint8_t>(blocks, out, e5m2_to_f32);
    case DType::F8_E8M0:
      return decode_each<uint8_t>(blocks, out, e8m0_to_f32);
#define QUERN_DECODE_CASE(name) \
  case DType::name:             \
    return decode_all<Block##name>(blocks, out);
      QUERN_BLOCK_TYPES(QUERN_DECODE_CASE)
#undef QUERN_DECODE_CASE
    default:
      throw Error(ErrorKind::kInternal, std::string(name_of(dtype)) + " has no float decoder");
  }
}

int64_t find_nonfinite(DType dtype, std::span<const std::byte> blocks) {
  switch (dtype) {
    case DType::F32:
      return first_with_bits<uint32_t>(blocks, 0x7F800000);
    case DType::F64:
      return first_with_bits<uint64_t>(blocks, 0x7FF0000000000000);
    case DType::F16:
      return first_with_bits<uint16_t>(blocks, 0x7C00);
    case DType::BF16:
      return first_with_bits<uint16_t>(blocks, 0x7F80);
    case DType::F8_E4M3:
      return first_with_bits<uint8_t>(blocks, 0x7F);
    case DType::F8_E5M2:
      return first_with_bits<uint8_t>(blocks, 0x7C);
    case DType::F8_E8M0:
      return first_with_bits<uint8_t>(blocks, 0xFF);
#define QUERN_NONFINITE_CASE(name) \
  case DType::name:                \
    return first_nonfinite_scale<Block##name>(blocks);
      QUERN_BLOCK_TYPES(QUERN_NONFINITE_CASE)
#undef QUERN_NONFINITE_CASE
    default:
      return -1;  // integers
  }
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {

HWY_EXPORT(decode);
HWY_EXPORT(find_nonfinite);

bool has_decoder(DType dtype) noexcept {
  switch (dtype) {
    case DType::F32:
    case DType::F16:
    case DType::BF16:
    case DType::F8_E4M3:
    case DType::F8_E5M2:
    case DType::F8_E8M0:
#define QUERN_DECODE_CASE(name) case DType::name:
      QUERN_BLOCK_TYPES(QUERN_DECODE_CASE)
#undef QUERN_DECODE_CASE
      return true;
    default:
      return false;
  }
}

void decode_blocks(DType dtype, std::span<const std::byte> blocks, std::span<float> out) {
  const auto block_bytes = static_cast<size_t>(traits(dtype).block_bytes);
  QUERN_CHECK(blocks.size() % block_bytes == 0);
  QUERN_CHECK(out.size() == blocks.size() / block_bytes * static_cast<size_t>(traits(dtype).block_weights));
  HWY_DYNAMIC_DISPATCH(decode)(dtype, blocks, out);
}

int64_t find_nonfinite_block(DType dtype, std::span<const std::byte> blocks) { return HWY_DYNAMIC_DISPATCH(find_nonfinite)(dtype, blocks); }

}  // namespace quern
#endif
