#include "verify/drift/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "formats/base/error.h"
#include "formats/base/parallel.h"
#include "runtime/math/vector_math.h"

// A finished pass is turned into one log-probability per predicted token, and every figure follows from these. Logits exist for a batch of
// rows at a time, about 64 MiB of them. Threads fill slots and add nothing up; sums are taken afterwards in the order of the text, in
// double, so figures do not depend on how many threads there were. Only predictions with half a context before them count for the
// perplexity that other tools print, because the first tokens of a chunk say more about where it was cut than about the model.

namespace quern {
namespace {

int64_t argmax(std::span<const float> logits) { return std::ranges::max_element(logits) - logits.begin(); }

// The figures of the second halves: exp(mean) and its first-order error.
void set_second_half(Perplexity& result) {
  const int64_t row = result.n_ctx - 1, first = result.n_ctx / 2;
  std::vector<double> nll, chunk_means;
  for (int64_t c = 0; c < result.n_chunks; ++c) {
    double sum = 0.0;
    for (int64_t t = first; t < row; ++t) sum += nll.emplace_back(-static_cast<double>(result.log_probs[static_cast<size_t>(c * row + t)]));
    chunk_means.push_back(sum / static_cast<double>(row - first));
  }
  const MeanAndError all = mean_and_error(nll);
  result.n_scored = static_cast<int64_t>(nll.size());
  result.ppl = std::exp(all.mean);
  result.ppl_error = result.ppl * all.error;
  if (chunk_means.size() < 2) return;
  double mean = 0.0, squares = 0.0;
  for (const double m : chunk_means) mean += m / static_cast<double>(chunk_means.size());
  for (const double m : chunk_means) squares += (m - mean) * (m - mean);
  const auto n = static_cast<double>(chunk_means.size());
  result.ppl_chunk_error = result.ppl * std::sqrt(squares / (n - 1.0) / n);
}

}  // namespace

std::vector<Sequence> make_chunks(std::span<const int32_t> tokens, int64_t n_ctx, int64_t max_chunks, std::optional<int32_t> bos) {
  if (n_ctx < 4) throw Error(ErrorKind::kUsage, "a context of " + std::to_string(n_ctx) + " tokens is too short (4 or more)");
  int64_t n_chunks = static_cast<int64_t>(tokens.size()) / n_ctx;
  if (n_chunks < 1 || (n_chunks < 2 && max_chunks != 1)) {
    throw Error(ErrorKind::kUsage, "the text has " + std::to_string(tokens.size()) + " tokens, fewer than " +
                                       (max_chunks == 1 ? "a chunk of " : "two chunks of ") + std::to_string(n_ctx) +
                                       "; use a longer text or shorter chunks");
  }
  if (max_chunks > 0) n_chunks = std::min(n_chunks, max_chunks);
  std::vector<Sequence> chunks;
  for (int64_t c = 0; c < n_chunks; ++c) {
    const auto begin = tokens.begin() + c * n_ctx;
    chunks.push_back({{begin, begin + n_ctx}});
    if (bos) chunks.back().tokens.front() = *bos;
  }
  return chunks;
}

void for_each_logits(const Evaluator& evaluator, const OutputHead& head, int64_t first, int64_t end,
                     const std::function<void(int64_t, std::span<const float>)>& body) {
  const int64_t n_vocab = head.n_vocab(), hidden = evaluator.final_states().width(), batch = head.rows_at_once();
  std::vector<float> states(static_cast<size_t>(batch * hidden)), logits(static_cast<size_t>(batch * n_vocab));
  for (int64_t row = first; row < end; row += batch) {
    throw_if_interrupted();
    const int64_t n = std::min(batch, end - row);
    evaluator.final_states().read(row, n, states.data());
    head.logits(states.data(), n, logits.data());
    parallel_for(n, 1, [&](int64_t begin, int64_t stop) {
      for (int64_t i = begin; i < stop; ++i)
        body(row + i, std::span(logits).subspan(static_cast<size_t>(i * n_vocab), static_cast<size_t>(n_vocab)));
    });
  }
}

double log_probability(std::span<const float> logits, int32_t token) {
  const auto n = static_cast<int64_t>(logits.size());
  const auto largest = static_cast<double>(largest_of(logits.data(), n));
  return static_cast<double>(logits[static_cast<size_t>(token)]) - largest - std::log(exp_sum(logits.data(), n, largest));
}

MeanAndError mean_and_error(std::span<const double> values) {
  const auto n = static_cast<double>(values.size());
  double sum = 0.0, squares = 0.0;
  for (const double v : values) {
    sum += v;
    squares += v * v;
  }
  MeanAndError result{sum / n, 0.0};
  if (values.size() > 10) result.error = std::sqrt(std::max(squares / n - result.mean * result.mean, 0.0) / (n - 1.0));
  return result;
}

Perplexity score(const Evaluator& evaluator, const OutputHead& head, std::span<const Sequence> chunks,
                 const std::function<int64_t(int32_t)>& token_bytes) {
  Perplexity result;
  result.n_ctx = static_cast<int64_t>(chunks.front().tokens.size());
  result.n_chunks = static_cast<int64_t>(chunks.size());
  result.n_vocab = head.n_vocab();
  const int64_t row = result.n_ctx - 1;
  result.log_probs.resize(static_cast<size_t>(result.n_chunks * row));
  for (int64_t c = 0; c < result.n_chunks; ++c) {
    const std::vector<int32_t>& tokens = chunks[static_cast<size_t>(c)].tokens;
    const int64_t first = evaluator.first_rows()[static_cast<size_t>(c)];
    for_each_logits(evaluator, head, first, first + row, [&](int64_t r, std::span<const float> logits) {
      const int64_t t = r - first;
      result.log_probs[static_cast<size_t>(c * row + t)] = static_cast<float>(log_probability(logits, tokens[static_cast<size_t>(t + 1)]));
    });
  }
  set_second_half(result);
  double sum = 0.0, n_bytes = 0.0;
  for (const float p : result.log_probs) sum -= static_cast<double>(p);
  result.nll_all = sum / static_cast<double>(result.log_probs.size());
  result.ppl_all = std::exp(result.nll_all);
  for (size_t c = 0; token_bytes && c < chunks.size(); ++c) {
    for (size_t t = 1; t < chunks[c].tokens.size(); ++t) n_bytes += static_cast<double>(token_bytes(chunks[c].tokens[t]));
  }
  if (n_bytes > 0.0) result.bits_per_byte = sum / std::numbers::ln2 / n_bytes;
  return result;
}

Perplexity measure_perplexity(const ModelSource& source, const EvalOptions& options, const std::vector<Sequence>& chunks,
                              Progress& progress, const std::function<int64_t(int32_t)>& token_bytes) {
  Evaluator evaluator(source, options);
  evaluator.forward(chunks, progress);
  return score(evaluator, OutputHead(evaluator), chunks, token_bytes);
}

MtpScore score_mtp(const ModelSource& mtp_source, const EvalOptions& options, const Evaluator& main, const OutputHead& main_head,
                   const std::vector<Sequence>& chunks, MtpInput input, Progress& progress) {
  MtpEvaluator mtp(mtp_source, options, input);
  mtp.run(main, chunks, progress);
  const OutputHead head = mtp.head();
  const int64_t n = static_cast<int64_t>(chunks.front().tokens.size()) - 2;
  MtpScore result;
  result.log_probs.resize(static_cast<size_t>(n) * chunks.size());
  std::vector<int64_t> guesses(result.log_probs.size()), best(guesses.size());
  for (size_t c = 0; c < chunks.size(); ++c) {
    const int64_t first = mtp.block().first_rows()[c], offset = static_cast<int64_t>(c) * n;
    for_each_logits(mtp.block(), head, first, first + n, [&](int64_t r, std::span<const float> logits) {
      const auto i = static_cast<size_t>(offset + r - first);
      result.log_probs[i] = static_cast<float>(log_probability(logits, chunks[c].tokens[static_cast<size_t>(r - first + 2)]));
      guesses[i] = argmax(logits);
    });
    const int64_t main_first = main.first_rows()[c] + 1;
    for_each_logits(main, main_head, main_first, main_first + n,
                    [&](int64_t r, std::span<const float> logits) { best[static_cast<size_t>(offset + r - main_first)] = argmax(logits); });
  }
  double sum = 0.0;
  result.chunk_agreement.resize(chunks.size());
  for (size_t i = 0; i < guesses.size(); ++i) {
    sum -= static_cast<double>(result.log_probs[i]);
    result.chunk_agreement[i / static_cast<size_t>(n)] += guesses[i] == best[i] ? 1.0 / static_cast<double>(n) : 0.0;
  }
  result.nll = sum / static_cast<double>(guesses.size());
  for (const double agreement : result.chunk_agreement) result.greedy_agreement += agreement / static_cast<double>(chunks.size());
  return result;
}

}  // namespace quern
