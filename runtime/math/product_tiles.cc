#include "runtime/math/product_tiles.h"

#include "formats/base/error.h"
#include "formats/base/platform.h"

// Products of BF16 parts with AMX tiles.
//
// A panel of 16 rows keeps, for every step of 32 k, two tiles of 1 KB: the first parts and the second parts. A tile of x is 16 rows of
// 32 values; a tile of w is 16 pairs of k by 16 outputs, as the instruction wants its right factor. TDPBF16PS then adds to a tile of
// 16 x 16 sums, for each of them,
//
//   (sum over even k of x_k w_k) + (sum over odd k of x_k w_k)
//
// both sums from zero in 16 fused steps, k ascending, every step rounded to nearest even and numbers below 2^-126 taken as zero
// (Intel SDM, TDPBF16PS). The order of a sum is: steps of 32 k ascending; in each x2 w1, then x1 w1, then x1 w2. Tiles of sums are kept
// in y between blocks of 256 k, which changes no bit.
//
// Blocking: 2 x 2 tiles of sums share their factors, so 8 loads serve 12 products. The 32 rows by 256 k of x that are in use (32 KB)
// stay in the first-level cache while the outputs pass by, up to 4096 k of all outputs in the second-level cache while the rows do.

#if defined(__x86_64__)

#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // of GCC 12 about its own intrinsics (GCC bug 105593)
#endif
#include <cpuid.h>
#include <immintrin.h>

#include <algorithm>

#define QUERN_TILES __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16")))

namespace quern {
namespace {

constexpr int64_t kTileFloats = 256;              // 1 KB
constexpr int64_t kStepFloats = 2 * kTileFloats;  // both parts
constexpr int kTileRows = 16;
constexpr int kTileRowBytes = 64;

bool cpu_has_tiles() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  constexpr unsigned kAvx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // F, DQ, BW, VL in ebx
  constexpr unsigned kAmx = 1u << 22 | 1u << 24;                           // BF16, TILE in edx
  if ((b & kAvx512) != kAvx512 || (d & kAmx) != kAmx) return false;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) == 0 || (a & 1u << 5) == 0) return false;  // AVX512_BF16
  return __get_cpuid_count(1, 0, &a, &b, &c, &d) != 0 && (c & 1u << 27) != 0;            // OSXSAVE: xgetbv may be asked
}

bool system_saves_tiles() noexcept {
  uint32_t low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr uint32_t kStates = 7u << 5 | 3u << 17;  // AVX-512, tile configuration and data
  return (low & kStates) == kStates && allow_tile_registers();
}

// 32 floats as the BF16 nearest to each, and the BF16 nearest to the rest.
struct Parts {
  __m512i first, second;
};

QUERN_TILES inline __m512 widen(__m256i bf16) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16)); }

QUERN_TILES inline __m512i narrow(__m512 low, __m512 high) { return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)); }

QUERN_TILES inline Parts split(__m512 low, __m512 high) {
  const __m512i first = narrow(low, high);
  const __m512 rest_low = _mm512_sub_ps(low, widen(_mm512_castsi512_si256(first)));
  const __m512 rest_high = _mm512_sub_ps(high, widen(_mm512_extracti64x4_epi64(first, 1)));
  return {first, narrow(rest_low, rest_high)};
}

QUERN_TILES inline __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>((1u << std::clamp<int64_t>(n, 0, 16)) - 1u); }

// Step k of a row of n_k floats; what lies beyond counts as zero.
QUERN_TILES inline Parts split_row(const float* row, int64_t k, int64_t n_k) {
  return split(_mm512_maskz_loadu_ps(first_lanes(n_k - k), row + k), _mm512_maskz_loadu_ps(first_lanes(n_k - k - 16), row + k + 16));
}

// Rows and columns of 16 x 16 elements of 32 bits exchanged.
QUERN_TILES inline void transpose(__m512i r[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// Makes pairs of 16 values of one k and 16 of the next.
QUERN_TILES inline __m512i pair_up(__m512i part) {
  const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(part));
  return _mm512_or_si512(low, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(part, 1)), 16));
}

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
  constexpr TileConfig() {
    std::fill_n(row_bytes, 8, uint16_t{kTileRowBytes});
    std::fill_n(rows, 8, uint8_t{kTileRows});
  }
};
static_assert(sizeof(TileConfig) == 64);

// Tiles 0..3 are the sums: row panel r and output panel o in tile 2r + o. Tiles 4, 5: x; 6, 7: w.
template <bool kTwoRows, bool kTwoOutputs>
QUERN_TILES inline void multiply_parts() {
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (kTwoOutputs) _tile_dpbf16ps(1, 4, 7);
  if constexpr (kTwoRows) _tile_dpbf16ps(2, 5, 6);
  if constexpr (kTwoRows && kTwoOutputs) _tile_dpbf16ps(3, 5, 7);
}

template <bool kTwoRows>
QUERN_TILES inline void load_rows(const float* x, int64_t x_pitch) {
  _tile_loadd(4, x, kTileRowBytes);
  if constexpr (kTwoRows) _tile_loadd(5, x + x_pitch, kTileRowBytes);
}

template <bool kTwoOutputs>
QUERN_TILES inline void load_outputs(const float* w, int64_t w_pitch) {
  _tile_loadd(6, w, kTileRowBytes);
  if constexpr (kTwoOutputs) _tile_loadd(7, w + w_pitch, kTileRowBytes);
}

struct Factors {
  const float* x;
  const float* w;
  int64_t x_pitch, w_pitch;  // floats between panels
  int64_t n_steps;
  bool exact;  // the second parts of w are zero
};

template <bool kTwoRows, bool kTwoOutputs>
QUERN_TILES void add_block(const Factors& f, bool first, float* y, int64_t stride) {
  const int64_t row_bytes = stride * static_cast<int64_t>(sizeof(float));
  float* second_rows = y + kPanelWidth * stride;
  if (first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, y, row_bytes);
    if constexpr (kTwoOutputs) _tile_loadd(1, y + kPanelWidth, row_bytes);
    if constexpr (kTwoRows) _tile_loadd(2, second_rows, row_bytes);
    if constexpr (kTwoRows && kTwoOutputs) _tile_loadd(3, second_rows + kPanelWidth, row_bytes);
  }
  for (int64_t step = 0; step < f.n_steps; ++step) {
    const float* x = f.x + step * kStepFloats;
    const float* w = f.w + step * kStepFloats;
    load_outputs<kTwoOutputs>(w, f.w_pitch);
    load_rows<kTwoRows>(x + kTileFloats, f.x_pitch);
    multiply_parts<kTwoRows, kTwoOutputs>();
    load_rows<kTwoRows>(x, f.x_pitch);
    multiply_parts<kTwoRows, kTwoOutputs>();
    if (f.exact) continue;
    load_outputs<kTwoOutputs>(w + kTileFloats, f.w_pitch);
    multiply_parts<kTwoRows, kTwoOutputs>();
  }
  _tile_stored(0, y, row_bytes);
  if constexpr (kTwoOutputs) _tile_stored(1, y + kPanelWidth, row_bytes);
  if constexpr (kTwoRows) _tile_stored(2, second_rows, row_bytes);
  if constexpr (kTwoRows && kTwoOutputs) _tile_stored(3, second_rows + kPanelWidth, row_bytes);
}

QUERN_TILES void add_whole_block(const Factors& f, bool two_rows, bool two_outputs, bool first, float* y, int64_t stride) {
  if (two_rows) {
    two_outputs ? add_block<true, true>(f, first, y, stride) : add_block<true, false>(f, first, y, stride);
  } else {
    two_outputs ? add_block<false, true>(f, first, y, stride) : add_block<false, false>(f, first, y, stride);
  }
}

// Two panels of rows by two of outputs, of which n_rows x n_outputs exist. Cut panels go through a block of their own.
QUERN_TILES void add_any_block(const Factors& f, int64_t n_rows, int64_t n_outputs, bool first, float* y, int64_t stride) {
  constexpr int64_t kSide = 2 * kPanelWidth;
  const bool two_rows = n_rows > kPanelWidth, two_outputs = n_outputs > kPanelWidth;
  if ((n_rows >= kSide || n_rows == kPanelWidth) && (n_outputs >= kSide || n_outputs == kPanelWidth)) {
    return add_whole_block(f, two_rows, two_outputs, first, y, stride);
  }
  alignas(64) float block[kSide * kSide] = {};
  n_rows = std::min(n_rows, kSide);
  n_outputs = std::min(n_outputs, kSide);
  for (int64_t r = 0; !first && r < n_rows; ++r) std::copy_n(y + r * stride, n_outputs, block + r * kSide);
  __asm__ volatile("" ::: "memory");  // tile loads do not tell the compiler what they read
  add_whole_block(f, two_rows, two_outputs, first, block, kSide);
  for (int64_t r = 0; r < n_rows; ++r) std::copy_n(block + r * kSide, n_outputs, y + r * stride);
}

}  // namespace

bool tiles_are_available() noexcept {
  static const bool available = cpu_has_tiles() && system_saves_tiles();
  return available;
}

QUERN_TILES PackedMatrix pack_rows_tiles(const Rows& x, float* out) noexcept {
  const int64_t n_k = padded_k(x.n_columns);
  float* panel = out;
  for (int64_t first = 0; first < x.n_rows; first += kPanelWidth, panel += n_k * kPanelWidth) {
    for (int64_t row = 0; row < kPanelWidth; ++row) {
      const bool exists = first + row < x.n_rows;
      const float* in = x.data + (first + row) * x.stride;
      for (int64_t k = 0; k < n_k; k += kStep) {
        const Parts parts = exists ? split_row(in, k, x.n_columns) : Parts{_mm512_setzero_si512(), _mm512_setzero_si512()};
        float* tile = panel + k * kPanelWidth + row * kPanelWidth;
        _mm512_store_si512(tile, parts.first);
        _mm512_store_si512(tile + kTileFloats, parts.second);
      }
    }
  }
  return {out, x.n_rows, n_k};
}

QUERN_TILES PackedMatrix pack_weights_tiles(const Rows& w, float* out) noexcept {
  const int64_t n_k = padded_k(w.n_columns);
  __m512i rests = _mm512_setzero_si512();
  float* tile = out;
  for (int64_t first = 0; first < w.n_rows; first += kPanelWidth) {
    for (int64_t k = 0; k < n_k; k += kStep, tile += kStepFloats) {
      __m512i firsts[16], seconds[16];
      for (int o = 0; o < 16; ++o) {
        const bool exists = first + o < w.n_rows;
        const Parts parts =
            exists ? split_row(w.data + (first + o) * w.stride, k, w.n_columns) : Parts{_mm512_setzero_si512(), _mm512_setzero_si512()};
        firsts[o] = parts.first;
        seconds[o] = parts.second;
        rests = _mm512_or_si512(rests, parts.second);
      }
      transpose(firsts);
      transpose(seconds);
      for (int i = 0; i < 16; ++i) {
        _mm512_store_si512(tile + i * kPanelWidth, firsts[i]);
        _mm512_store_si512(tile + kTileFloats + i * kPanelWidth, seconds[i]);
      }
    }
  }
  const bool exact = _mm512_test_epi32_mask(rests, _mm512_set1_epi32(0x7FFF7FFF)) == 0;
  return {out, w.n_rows, n_k, exact};
}

QUERN_TILES PackedMatrix pack_columns_tiles(const Rows& w, float* out) noexcept {
  const int64_t n_k = padded_k(w.n_rows);
  float* tile = out;
  for (int64_t first = 0; first < w.n_columns; first += kPanelWidth) {
    const __mmask16 lanes = first_lanes(w.n_columns - first);
    for (int64_t k = 0; k < n_k; k += kStep, tile += kStepFloats) {
      for (int64_t pair = 0; pair < kStep / 2; ++pair) {
        const int64_t even = k + 2 * pair;
        const float* in = w.data + even * w.stride + first;
        const __m512 a = even < w.n_rows ? _mm512_maskz_loadu_ps(lanes, in) : _mm512_setzero_ps();
        const __m512 b = even + 1 < w.n_rows ? _mm512_maskz_loadu_ps(lanes, in + w.stride) : _mm512_setzero_ps();
        const Parts parts = split(a, b);
        _mm512_store_si512(tile + pair * kPanelWidth, pair_up(parts.first));
        _mm512_store_si512(tile + kTileFloats + pair * kPanelWidth, pair_up(parts.second));
      }
    }
  }
  return {out, w.n_columns, n_k};
}

QUERN_TILES void multiply_tiles(const PackedMatrix& x, const PackedMatrix& w, int64_t n_k, float* y, int64_t stride) noexcept {
  constexpr int64_t kOutputsCached = 4096, kRowsCached = 256, kSide = 2 * kPanelWidth;
  static constexpr TileConfig config;
  _tile_loadconfig(&config);
  const int64_t end = padded_k(n_k);
  for (int64_t part = 0; part < end; part += kOutputsCached) {
    for (int64_t row = 0; row < x.n; row += kSide) {
      for (int64_t k = part; k < std::min(end, part + kOutputsCached); k += kRowsCached) {
        const int64_t n_steps = (std::min(end, k + kRowsCached) - k) / kStep;
        for (int64_t output = 0; output < w.n; output += kSide) {
          const Factors factors{x.from_row(row).from_k(k).data,
                                w.from_row(output).from_k(k).data,
                                x.n_k * kPanelWidth,
                                w.n_k * kPanelWidth,
                                n_steps,
                                w.exact};
          add_any_block(factors, x.n - row, w.n - output, k == 0, y + row * stride + output, stride);
        }
      }
    }
  }
  _tile_release();
}

}  // namespace quern

#else

namespace quern {

bool tiles_are_available() noexcept { return false; }

PackedMatrix pack_rows_tiles(const Rows&, float*) noexcept { return {}; }
PackedMatrix pack_weights_tiles(const Rows&, float*) noexcept { return {}; }
PackedMatrix pack_columns_tiles(const Rows&, float*) noexcept { return {}; }
void multiply_tiles(const PackedMatrix&, const PackedMatrix&, int64_t, float*, int64_t) noexcept {}

}  // namespace quern

#endif
