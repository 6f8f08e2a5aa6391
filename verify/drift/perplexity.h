#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "runtime/pass/evaluator.h"
#include "runtime/pass/mtp.h"
#include "runtime/pass/output_head.h"

namespace quern {

// Cuts a tokenized text into chunks of n_ctx as llama-perplexity does: the remainder is dropped, at most max_chunks (0: all) are
// kept, and with a BOS the first token of every chunk is replaced by it. Throws kUsage when the text is shorter than two chunks,
// unless one was asked for, which takes one chunk.
std::vector<Sequence> make_chunks(std::span<const int32_t> tokens, int64_t n_ctx, int64_t max_chunks, std::optional<int32_t> bos);

// Calls body(row, logits) for every row in [first, end) of the evaluator's final states, in batches of bounded size; calls run in
// parallel, in no particular order.
void for_each_logits(const Evaluator& evaluator, const OutputHead& head, int64_t first, int64_t end,
                     const std::function<void(int64_t, std::span<const float>)>& body);

// log softmax(logits)[token], sums in double.
double log_probability(std::span<const float> logits, int32_t token);

struct MeanAndError {
  double mean = 0.0;
  double error = 0.0;  // standard error of the mean, values taken as independent; 0 for 10 values or fewer
};
MeanAndError mean_and_error(std::span<const double> values);

struct Perplexity {
  int64_t n_ctx = 0;
  int64_t n_chunks = 0;
  int64_t n_vocab = 0;
  std::vector<float> log_probs;  // [n_chunks, n_ctx - 1]: of token t + 1 given tokens 0 .. t

  // llama-perplexity's number: positions n_ctx/2 .. n_ctx-2 of every chunk predict the next token.
  int64_t n_scored = 0;
  double ppl = 0.0;
  double ppl_error = 0.0;        // as printed by that tool: tokens taken as independent
  double ppl_chunk_error = 0.0;  // from the spread of chunk means, which neighbouring tokens do not flatter; 0 for one chunk
  // All n_ctx - 1 predictions of every chunk.
  double nll_all = 0.0;
  double ppl_all = 0.0;
  double bits_per_byte = 0.0;  // of those predictions, 0 when token sizes are not given
};

// Log-probabilities of a finished pass and the figures that follow from them. token_bytes: text bytes of a token, may be empty.
Perplexity score(const Evaluator& evaluator, const OutputHead& head, std::span<const Sequence> chunks,
                 const std::function<int64_t(int32_t)>& token_bytes = {});

// The whole pass over one model.
Perplexity measure_perplexity(const ModelSource& source, const EvalOptions& options, const std::vector<Sequence>& chunks,
                              Progress& progress, const std::function<int64_t(int32_t)>& token_bytes = {});

// What a speculative decoder would gain from the MTP block: how well it predicts token t + 2, and how often its best guess is the one
// the main head then makes for the same token (greedy acceptance). Teacher-forced on the text.
struct MtpScore {
  std::vector<float> log_probs;  // [n_chunks, n_ctx - 2]
  double nll = 0.0;
  double greedy_agreement = 0.0;
  std::vector<double> chunk_agreement;
};
MtpScore score_mtp(const ModelSource& mtp_source, const EvalOptions& options, const Evaluator& main, const OutputHead& main_head,
                   const std::vector<Sequence>& chunks, MtpInput input, Progress& progress);

}  // namespace quern
