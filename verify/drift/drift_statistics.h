#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "verify/drift/perplexity.h"

namespace quern {

// What one scored position contributes to a comparison of a tested model Q with the original P. Natural logarithms.
struct TokenDrift {
  double nll = 0.0;                            // -ln Q(next token)
  double nll_original = 0.0;                   // -ln P(next token)
  double kl = 0.0;                             // sum over the vocabulary of P ln(P / Q)
  double kl_slack = 0.0;                       // the true value lies in [kl, kl + kl_slack]; 0 when P is known in full
  bool same_top = false;                       // both give the same token the highest probability
  double probability_change() const noexcept;  // Q - P of the next token
};

// log softmax, sums in double.
void log_softmax(std::span<const float> logits, std::vector<double>& log_probs);

// P and Q as log-probabilities over the vocabulary. Terms with ln P <= floor are left out: stored distributions of 16 bits need
// floor = -16, as llama-perplexity uses it; exact ones take everything.
TokenDrift compare_distributions(std::span<const double> original, std::span<const double> tested, int32_t next_token, double floor);

struct Estimate {
  double value = 0.0;
  double error = 0.0;  // one standard error
};

// Tokens by their KL, in bins that are the same in every report, so that reports can be laid side by side.
struct KlHistogram {
  static constexpr double kFirst = 1e-8;  // nats: lower end of the first bin
  static constexpr int kPerDecade = 8;
  static constexpr size_t kBins = 80;  // up to 100 nats

  uint64_t below = 0;  // 0 among them; rounding can give tiny negative sums
  std::array<uint64_t, kBins> counts = {};
  uint64_t above = 0;  // and what is not a number

  void add(double kl) noexcept;
  static double edge(size_t i) noexcept;  // lower end of bin i, upper end of bin i - 1
  uint64_t total() const noexcept;
};

// The figures of llama-perplexity --kl-divergence, by its formulas. All errors take tokens as independent.
// Source: ggml-org/llama.cpp tools/perplexity/perplexity.cpp.
struct DriftStatistics {
  int64_t n_tokens = 0;
  Estimate ppl;
  Estimate ppl_original;
  Estimate ln_ratio;         // ln(PPL(Q) / PPL(P)), errors paired
  Estimate ratio;            // its exponential
  Estimate difference;       // PPL(Q) - PPL(P)
  double correlation = 0.0;  // of the two models' token losses
  Estimate kl;
  double kl_slack = 0.0;  // mean; see TokenDrift
  double kl_min = 0.0, kl_median = 0.0, kl_90 = 0.0, kl_95 = 0.0, kl_99 = 0.0, kl_999 = 0.0, kl_max = 0.0;
  KlHistogram kl_histogram;
  Estimate probability_change;  // mean of Q - P of the next token
  Estimate rms_probability_change;
  Estimate same_top;  // share
};
DriftStatistics drift_statistics(std::span<const TokenDrift> tokens);
// Whether the figures that gates are about are numbers: one token without a finite probability makes them none.
bool is_finite(const DriftStatistics& statistics);

// Linear interpolation at position f (n - 1) of the sorted values.
double quantile(std::span<const double> sorted, double f);

}  // namespace quern
