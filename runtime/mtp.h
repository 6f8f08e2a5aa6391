#pragma once

#include "runtime/evaluator.h"
#include "runtime/output_head.h"

namespace quern {

// The multi-token-prediction block of DeepSeek V3 and V4 over the states of a finished pass of the main model. Row i of a sequence
// combines the main state of token i with the embedding of token i + 1 (embedding half first) and predicts token i + 2.
// V3: the main state is taken after the final norm; V4: the four streams before the output head, each combined separately.
// Source: deepseek-ai/DeepSeek-V3 README_WEIGHTS.md, DeepSeek-V4-Flash inference/model.py; sglang srt/models/deepseek_nextn.py.
class MtpEvaluator {
 public:
  // source: the model opened with ModelOptions::mtp (only the MTP block, embedding and output), or a GGUF that holds everything.
  MtpEvaluator(const ModelSource& source, const EvalOptions& options);

  // main: after finish(). sequences: as given to main. Rows per sequence: one less than its tokens.
  void run(const Evaluator& main, std::span<const Sequence> sequences, Progress& progress);

  const Evaluator& block() const noexcept { return block_; }  // final_states() feed the head
  OutputHead head() const;

 private:
  void combine(const Evaluator& main, std::span<const Sequence> sequences);

  Evaluator block_;
  std::string prefix_;  // "blk.61.nextn."
};

}  // namespace quern
