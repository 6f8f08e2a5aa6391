#include "verify/drift/drift_statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "formats/base/error.h"

// Every figure is a mean over tokens, and errors are carried through exponentials and roots to first order. Both models are measured on the
// same tokens, so their losses rise and fall together; the covariance of the two means takes that out of the error of their ratio, which
// can be told from one long before the two perplexities could be told from each other. With ten tokens or fewer the error of a mean is 0,
// as in the tool whose figures these are. NaN in one token is NaN in every figure of that kind: it compares with nothing, so neither
// sorting nor taking a maximum may meet it.

namespace quern {

double TokenDrift::probability_change() const noexcept { return std::exp(-nll) - std::exp(-nll_original); }

void log_softmax(std::span<const float> logits, std::vector<double>& log_probs) {
  const auto largest = static_cast<double>(*std::ranges::max_element(logits));
  double sum = 0.0;
  for (const float z : logits) sum += std::exp(static_cast<double>(z) - largest);
  const double shift = largest + std::log(sum);
  log_probs.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) log_probs[i] = static_cast<double>(logits[i]) - shift;
}

TokenDrift compare_distributions(std::span<const double> original, std::span<const double> tested, int32_t next_token, double floor) {
  QUERN_CHECK(original.size() == tested.size());
  TokenDrift drift;
  drift.nll = -tested[static_cast<size_t>(next_token)];
  drift.nll_original = -original[static_cast<size_t>(next_token)];
  size_t top_original = 0, top_tested = 0;
  for (size_t i = 0; i < original.size(); ++i) {
    if (original[i] > original[top_original]) top_original = i;
    if (tested[i] > tested[top_tested]) top_tested = i;
    if (!(original[i] <= floor)) drift.kl += std::exp(original[i]) * (original[i] - tested[i]);  // NaN is not left out
  }
  drift.same_top = top_original == top_tested && !std::isnan(drift.kl);
  return drift;
}

void KlHistogram::add(double kl) noexcept {
  if (kl < kFirst) {
    ++below;
  } else if (const double bin = std::floor(std::log10(kl / kFirst) * kPerDecade); bin < static_cast<double>(kBins)) {
    ++counts[static_cast<size_t>(bin)];
  } else {
    ++above;  // NaN compares with nothing and ends here
  }
}

double KlHistogram::edge(size_t i) noexcept { return kFirst * std::pow(10.0, static_cast<double>(i) / kPerDecade); }

uint64_t KlHistogram::total() const noexcept { return std::accumulate(counts.begin(), counts.end(), below + above); }

double quantile(std::span<const double> sorted, double f) {
  if (sorted.empty()) return 0.0;
  const double position = f * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(position);
  if (below + 1 >= sorted.size()) return sorted.back();
  const double part = position - static_cast<double>(below);
  return (1.0 - part) * sorted[below] + part * sorted[below + 1];
}

namespace {

template <typename Value>
std::vector<double> column(std::span<const TokenDrift> tokens, Value value) {
  std::vector<double> values;
  values.reserve(tokens.size());
  for (const TokenDrift& token : tokens) values.push_back(value(token));
  return values;
}

Estimate estimate(std::span<const double> values) {
  const MeanAndError m = mean_and_error(values);
  return {m.mean, m.error};
}

void set_perplexities(std::span<const TokenDrift> tokens, DriftStatistics& s) {
  const std::vector<double> tested = column(tokens, [](const TokenDrift& t) { return t.nll; });
  const std::vector<double> original = column(tokens, [](const TokenDrift& t) { return t.nll_original; });
  const Estimate q = estimate(tested), p = estimate(original);
  double products = 0.0;
  for (size_t i = 0; i < tested.size(); ++i) products += tested[i] * original[i];
  const auto n = static_cast<double>(tested.size());
  const double covariance = tested.size() > 10 ? (products / n - q.value * p.value) / (n - 1.0) : 0.0;
  s.ppl = {std::exp(q.value), std::exp(q.value) * q.error};
  s.ppl_original = {std::exp(p.value), std::exp(p.value) * p.error};
  s.correlation = q.error > 0.0 && p.error > 0.0 ? covariance / (q.error * p.error) : 0.0;
  s.ln_ratio = {q.value - p.value, std::sqrt(std::max(q.error * q.error + p.error * p.error - 2.0 * covariance, 0.0))};
  s.ratio = {std::exp(s.ln_ratio.value), std::exp(s.ln_ratio.value) * s.ln_ratio.error};
  s.difference = {s.ppl.value - s.ppl_original.value,
                  std::sqrt(std::max(s.ppl.error * s.ppl.error + s.ppl_original.error * s.ppl_original.error -
                                         2.0 * s.ppl.value * s.ppl_original.value * covariance,
                                     0.0))};
}

void set_divergence(std::span<const TokenDrift> tokens, DriftStatistics& s) {
  std::vector<double> kl = column(tokens, [](const TokenDrift& t) { return t.kl; });
  for (const double value : kl) s.kl_histogram.add(value);
  s.kl = estimate(kl);
  s.kl_slack = estimate(column(tokens, [](const TokenDrift& t) { return t.kl_slack; })).value;
  if (std::ranges::any_of(kl, [](double value) { return std::isnan(value); })) {
    std::ranges::fill(kl, std::numeric_limits<double>::quiet_NaN());
  }
  std::ranges::sort(kl);
  s.kl_min = kl.front();
  s.kl_median = quantile(kl, 0.5);
  s.kl_90 = quantile(kl, 0.9);
  s.kl_95 = quantile(kl, 0.95);
  s.kl_99 = quantile(kl, 0.99);
  s.kl_999 = quantile(kl, 0.999);
  s.kl_max = kl.back();
}

void set_probabilities(std::span<const TokenDrift> tokens, DriftStatistics& s) {
  s.probability_change = estimate(column(tokens, [](const TokenDrift& t) { return t.probability_change(); }));
  const Estimate squares = estimate(column(tokens, [](const TokenDrift& t) { return t.probability_change() * t.probability_change(); }));
  const double rms = std::sqrt(squares.value);
  s.rms_probability_change = {rms, rms > 0.0 ? 0.5 / rms * squares.error : 0.0};
  const auto n = static_cast<double>(tokens.size());
  const auto same = static_cast<double>(std::ranges::count_if(tokens, [](const TokenDrift& t) { return t.same_top; })) / n;
  s.same_top = {same, tokens.size() > 1 ? std::sqrt(same * (1.0 - same) / (n - 1.0)) : 0.0};
}

}  // namespace

bool is_finite(const DriftStatistics& s) {
  return std::ranges::all_of(std::array{s.ppl.value, s.ppl_original.value, s.kl.value, s.kl_slack},
                             [](double v) { return std::isfinite(v); });
}

DriftStatistics drift_statistics(std::span<const TokenDrift> tokens) {
  QUERN_CHECK(!tokens.empty());
  DriftStatistics s;
  s.n_tokens = static_cast<int64_t>(tokens.size());
  set_perplexities(tokens, s);
  set_divergence(tokens, s);
  set_probabilities(tokens, s);
  return s;
}

}  // namespace quern
