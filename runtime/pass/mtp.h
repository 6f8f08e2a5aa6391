#pragma once

#include "runtime/pass/evaluator.h"
#include "runtime/pass/output_head.h"

namespace quern {

// Which state of the last main layer the MTP block of V3 gets. Released models were trained with the state after the final norm: the
// acceptance of an engine rose from 61.4 to 64.6 % when it changed to that one. The models in tests/data were made with the one before.
// The block normalises it again, so the choice only differs by the final norm's weights. V4 always takes the four streams.
enum class MtpInput { kAfterNorm, kBeforeNorm };

// The multi-token-prediction block of DeepSeek V3 and V4 over the states of a finished pass of the main model. Row i of a sequence
// combines the main state of token i with the embedding of token i + 1 (embedding half first) and predicts token i + 2.
// V4 combines each of the four streams separately.
// Source: deepseek-ai/DeepSeek-V3 README_WEIGHTS.md, DeepSeek-V4-Flash inference/model.py; sglang srt/models/deepseek_nextn.py.
class MtpEvaluator {
 public:
  // source: the model opened with ModelOptions::mtp (only the MTP block, embedding and output), or a GGUF that holds everything.
  MtpEvaluator(const ModelSource& source, const EvalOptions& options, MtpInput input = MtpInput::kAfterNorm);

  // main: after finish(). sequences: as given to main. Rows per sequence: one less than its tokens.
  void run(const Evaluator& main, std::span<const Sequence> sequences, Progress& progress);

  const Evaluator& block() const noexcept { return block_; }  // final_states() feed the head
  OutputHead head() const;

 private:
  void combine(const Evaluator& main, std::span<const Sequence> sequences);

  Evaluator block_;
  MtpInput input_;
  std::string prefix_;  // "blk.61.nextn."
};

}  // namespace quern
