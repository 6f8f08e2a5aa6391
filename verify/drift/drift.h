#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "verify/drift/drift_statistics.h"

namespace quern {

// Share of tokens whose set of experts in a MoE layer differs from the original's.
struct ExpertChange {
  int64_t layer = 0;
  double share = 0.0;
};

struct ModelDrift {
  std::vector<TokenDrift> tokens;  // chunk by chunk, positions n_ctx/2 .. n_ctx-2
  DriftStatistics statistics;
  std::vector<ExpertChange> expert_changes;
  uint64_t bytes_read = 0;
};

// Distribution of the original model at the scored positions, however it is known.
class ReferenceDistribution {
 public:
  virtual ~ReferenceDistribution() = default;
  virtual const std::vector<Sequence>& chunks() const noexcept = 0;
  virtual int64_t n_vocab() const noexcept = 0;
  // tokens_sha256() of the original; empty when it is not known.
  virtual std::string tokens_sha256() const { return ""; }
  // Compares logits of a tested model at position t of a chunk. Thread-safe between begin_rows() calls.
  virtual void begin_rows(int64_t chunk, int64_t first, int64_t n) = 0;  // the rows that compare() will be asked for next
  virtual TokenDrift compare(int64_t chunk, int64_t t, std::span<const float> tested) const = 0;
  // Experts the original chose, [layer][row * n_used + j], or empty where that is not known.
  virtual const std::vector<std::vector<int32_t>>& experts() const noexcept = 0;
};

// The original model itself: one pass whose final states are kept; logits of original and build are computed side by side, so that
// no distribution is ever stored or rounded. With noise_floor the pass also runs every chunk a second time under BF16-sized
// perturbations (Sequence::rounded), from the same read of the weights.
class OriginalModel final : public ReferenceDistribution {
 public:
  OriginalModel(const ModelSource& source, const EvalOptions& options, std::vector<Sequence> chunks, bool noise_floor, Progress& progress);

  // Drift of the original against itself, computed by the pass above.
  ModelDrift noise_floor();
  // Calls body(chunk, t, logits) for all scored rows; for writing reference files.
  void for_each_row(const std::function<void(int64_t, int64_t, std::span<const float>)>& body);

  const std::vector<Sequence>& chunks() const noexcept override { return chunks_; }
  int64_t n_vocab() const noexcept override { return head_->n_vocab(); }
  void begin_rows(int64_t chunk, int64_t first, int64_t n) override;
  TokenDrift compare(int64_t chunk, int64_t t, std::span<const float> tested) const override;
  const std::vector<std::vector<int32_t>>& experts() const noexcept override { return experts_; }
  uint64_t resident_bytes() const noexcept;  // what stays in memory while builds are compared

 private:
  std::vector<Sequence> chunks_;
  std::unique_ptr<Evaluator> evaluator_;
  std::unique_ptr<OutputHead> head_;
  std::vector<std::vector<int32_t>> experts_;        // of the chunks
  std::vector<std::vector<int32_t>> noise_experts_;  // of the perturbed chunks
  std::vector<float> logits_;                        // of the rows announced by begin_rows()
  int64_t first_position_ = 0;                       // position of the first of them
};

// Throws kFormat for a row of a stored reference that is no distribution: no figure that it gives could be trusted.
[[noreturn]] void refuse_row(const std::filesystem::path& file, int64_t chunk, int64_t position, const std::string& why);

// SHA-256 over the texts of a vocabulary, each behind its length as a u64; of no tokens when the metadata has none.
std::string tokens_sha256(const Metadata& metadata);

// Tokens that the distributions of a model are over. Reads no weights.
int64_t vocabulary_size(const ModelSource& model);
// Throws kFormat when a build has another number of them than the original.
void check_vocabulary(const ModelSource& build, int64_t n_vocab);

// Runs a build over the reference's chunks and compares. Throws kFormat when the vocabularies differ.
ModelDrift measure_drift(const ModelSource& build, const EvalOptions& options, ReferenceDistribution& reference, Progress& progress);

}  // namespace quern
