// 16 rows of a matrix side by side. Compiled once per CPU target.

#if defined(QUERN_QUANTIZE_ROW_GROUP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_ROW_GROUP_INL_H_
#undef QUERN_QUANTIZE_ROW_GROUP_INL_H_
#else
#define QUERN_QUANTIZE_ROW_GROUP_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "quantize/plain/block_weights.h"
#include "quantize/plain/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

inline constexpr int kSuper = 256;  // weights of a super-block

// x[j][i] = rows[i][j] for j < n, a multiple of 4.
inline void transpose_rows(const float* const (&rows)[kLanes], int n, float (*x)[kLanes]) {
#if HWY_TARGET == HWY_SCALAR
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < n; ++j) x[j][i] = rows[i][j];
  }
#else
  const hn::FixedTag<float, 4> tag;
  for (int i = 0; i < kLanes; i += 4) {  // few rows at a time: with their usual lengths, all sixteen want the same places of a cache
    for (int j = 0; j < n; j += 4) {
      const auto a = hn::LoadU(tag, rows[i] + j), b = hn::LoadU(tag, rows[i + 1] + j);
      const auto c = hn::LoadU(tag, rows[i + 2] + j), d = hn::LoadU(tag, rows[i + 3] + j);
      const auto ab = hn::InterleaveLower(tag, a, b), cd = hn::InterleaveLower(tag, c, d);
      const auto ab_upper = hn::InterleaveUpper(tag, a, b), cd_upper = hn::InterleaveUpper(tag, c, d);
      hn::StoreU(hn::ConcatLowerLower(tag, cd, ab), tag, x[j] + i);
      hn::StoreU(hn::ConcatUpperUpper(tag, cd, ab), tag, x[j + 1] + i);
      hn::StoreU(hn::ConcatLowerLower(tag, cd_upper, ab_upper), tag, x[j + 2] + i);
      hn::StoreU(hn::ConcatUpperUpper(tag, cd_upper, ab_upper), tag, x[j + 3] + i);
    }
  }
#endif
}

// rows[i][j] = codes[j][i]. n is a multiple of 16.
template <int n>
void rows_of_codes(const uint8_t (&codes)[n][kLanes], uint8_t (&rows)[kLanes][n]) {
#if HWY_TARGET == HWY_SCALAR
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < n; ++j) rows[i][j] = codes[j][i];
  }
#else
  const hn::FixedTag<uint8_t, kLanes> tag;
  for (int j = 0; j < n; j += kLanes) {
    hn::Vec<decltype(tag)> v[kLanes];
    for (int k = 0; k < kLanes; ++k) v[k] = hn::LoadU(tag, codes[j + k]);
    for (int step = 1; step < kLanes; step *= 2) {  // the perfect shuffle of all bytes, four times, is the transposition
      hn::Vec<decltype(tag)> mixed[kLanes];
      for (int k = 0; k < kLanes / 2; ++k) {
        mixed[2 * k] = hn::InterleaveLower(tag, v[k], v[k + kLanes / 2]);
        mixed[2 * k + 1] = hn::InterleaveUpper(tag, v[k], v[k + kLanes / 2]);
      }
      for (int k = 0; k < kLanes; ++k) v[k] = mixed[k];
    }
    for (int i = 0; i < kLanes; ++i) hn::StoreU(v[i], tag, rows[i] + j);
  }
#endif
}

// The same block of up to 16 rows, transposed: element j of row i is at x[j][i]. Rows that vanish or are missing are zero.
template <int n>
struct RowGroup {
  alignas(64) float x[n][kLanes];
  const float* w;                  // n importances as normalise_importance makes them, the same for all rows
  const float* row[kLanes];        // the weights themselves
  alignas(64) float down[kLanes];  // what they were multiplied with
  alignas(64) float unit[kLanes];  // 1 / down
  bool vanishes[kLanes];           // below the smallest magnitude that the type can hold: the block is stored as zero

  RowGroup(const float* rows, int64_t stride, int n_rows, const float* importance, float smallest) : w(importance) {
    static constexpr float kMissing[n] = {};
    for (int i = 0; i < kLanes; ++i) row[i] = i < n_rows ? rows + i * stride : kMissing;
    transpose_rows(row, n, x);
    Lanes largest = splat(0.0f);
    for (int j = 0; j < n; ++j) largest = max(largest, abs(load(x[j])));
    alignas(64) float most[kLanes];
    store(largest, most);
    for (int i = 0; i < kLanes; ++i) {
      const Magnitude magnitude = magnitude_of(most[i], smallest);
      unit[i] = magnitude.unit;
      vanishes[i] = magnitude.vanishes;
      down[i] = magnitude.vanishes ? 0.0f : magnitude.down;
    }
    const Lanes factor = load(down);
    for (int j = 0; j < n; ++j) store(load(x[j]) * factor, x[j]);
  }
};

// Of each row: the weight of largest magnitude, with its sign, among those that have any say: an outlier in a channel of (nearly) no
// importance must not set the range of scales.
HWY_INLINE Lanes extremes(const float (*x)[kLanes], const float* w, int n) {
  const float least = *std::max_element(w, w + n) * 0x1p-14f;
  Lanes best = splat(0.0f);
  for (int j = 0; j < n; ++j) {
    if (w[j] < least) continue;
    const Lanes value = load(x[j]);
    best = select_less(abs(best), abs(value), value, best);
  }
  return best;
}

// What the importance of each sub-block makes of its errors, the same for all rows. Errors: of n weights, with a type Columns.
template <typename Errors, int n>
struct ColumnsOfSubBlocks {
  ColumnsOfSubBlocks() = default;
  explicit ColumnsOfSubBlocks(const float* w) {
    for (int b = 0; b < kSuper / n; ++b) of[b] = typename Errors::Columns(w + b * n);
  }

  typename Errors::Columns of[kSuper / n];
};

struct NothingToPrepare {
  void operator()(const float*) const noexcept {}
};

// Encodes n_rows rows of n_cols weights, n columns of 16 rows at a time. prepare(w) comes before the first group with this importance;
// encode(group, put) calls put(pack) once, which calls pack(i, block) for each row i that does not vanish. Blocks start out as zero bytes.
template <int n, typename Block, typename Encode, typename Prepare = NothingToPrepare>
void for_each_group(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, std::byte* out, Encode encode,
                    Prepare prepare = {}, float smallest = kSmallestForF16) {
  const int64_t n_blocks = n_cols / n;
  alignas(64) float w[n];
  for (int64_t c = 0; c < n_blocks; ++c) {
    if (importance != nullptr || c == 0) {
      normalise_importance<n>(importance == nullptr ? nullptr : importance + c * n, w);
      prepare(w);
    }
    for (int64_t row = 0; row < n_rows; row += kLanes) {
      const int n_group = static_cast<int>(std::min<int64_t>(kLanes, n_rows - row));
      const RowGroup<n> group(x + row * n_cols + c * n, n_cols, n_group, w, smallest);
      encode(group, [&](auto pack) {
        for (int i = 0; i < n_group; ++i) {
          Block block{};
          if (!group.vanishes[i]) pack(i, block);
          store_le(out + ((row + i) * n_blocks + c) * static_cast<int64_t>(sizeof(Block)), block);
        }
      });
    }
  }
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_ROW_GROUP_INL_H_
