#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "formats/model/hparams.h"

namespace quern {

// Rotation per pair: n_dims / 2 angular frequencies in double, scaling applied. freq_factors (rope_freqs.weight of llama3 models)
// divide them; empty for none.
// YaRN as in huggingface/transformers modeling_rope_utils.py: pairs that turn more than beta_fast times within the original context
// keep their frequency, pairs that turn less than beta_slow times are divided by `factor`, a linear ramp lies between.
std::vector<double> rope_frequencies(const RopeParams& rope, std::span<const float> freq_factors);

// cos and sin of consecutive positions, times the magnitude. Angles are computed in double from position * frequency; ggml's running
// f32 product drifts by up to 5e-3 rad at position 1e5 and is not imitated.
class RopeTable {
 public:
  RopeTable(const RopeParams& rope, std::span<const double> frequencies, int64_t first_position, int64_t n_positions, int64_t step = 1);

  // Rotates the n_dims values at x in place for position number `index` of the table.
  void rotate(float* x, int64_t index) const noexcept { apply(x, index, 1.0f); }
  void rotate_back(float* x, int64_t index) const noexcept { apply(x, index, -1.0f); }
  int64_t n_dims() const noexcept { return 2 * n_pairs_; }

 private:
  void apply(float* x, int64_t index, float direction) const noexcept;

  RopePairing pairing_;
  int64_t n_pairs_;
  std::vector<float> cos_;  // [n_positions, n_pairs]
  std::vector<float> sin_;
};

}  // namespace quern
