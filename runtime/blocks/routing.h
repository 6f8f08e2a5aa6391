#pragma once

#include <cstdint>
#include <span>

#include "formats/model/hparams.h"

namespace quern {

// Experts of one token, with the weights their outputs get.
struct Selection {
  int32_t* experts;  // [n_used]
  float* weights;    // [n_used]
};

// Chooses experts from router logits [n_experts]: probabilities by `gating`, choice by probability + bias (empty: none) among the
// groups kept, weights from the unbiased probabilities. Everything in double; ties go to the lower index. Experts outside the kept
// groups can never be chosen (policies D1 and D2: groups score the sum of two for biased routing, their maximum for softmax).
// Sources: deepseek-ai/DeepSeek-V3 inference/model.py (Gate), huggingface/transformers deepseek_v2 and deepseek_v3.
void route(const RoutingParams& routing, std::span<const float> logits, std::span<const float> bias, const Selection& out);

// The same with the experts given (hash routing): only the weights come from the logits.
void route_to(const RoutingParams& routing, std::span<const float> logits, std::span<const int32_t> experts, const Selection& out);

}  // namespace quern
