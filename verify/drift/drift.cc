#include "verify/drift/drift.h"

#include <algorithm>
#include <limits>

#include "formats/base/error.h"
#include "formats/base/parallel.h"
#include "formats/base/sha256.h"

// A pass leaves the final state of every token, which is small; logits are as wide as the vocabulary and are never stored. So both models
// are brought to their final states first, and then the same few rows of both are multiplied by their output matrices, compared and
// dropped, with a token per thread. The noise floor is not another run: its sequences go through the same pass behind the chunks
// themselves, at twice the arithmetic and no more reading, and are compared as a build's would be. Which experts were chosen is noted on
// the way and compared as sets, because the order in which a router names them means nothing.

namespace quern {
namespace {

// Computes logits of consecutive rows of final states.
void rows_logits(const Evaluator& evaluator, const OutputHead& head, int64_t first_row, int64_t n, std::vector<float>& logits) {
  std::vector<float> states(static_cast<size_t>(n * evaluator.final_states().width()));
  evaluator.final_states().read(first_row, n, states.data());
  logits.resize(static_cast<size_t>(n * head.n_vocab()));
  head.logits(states.data(), n, logits.data());
}

bool same_set(std::span<const int32_t> a, std::span<const int32_t> b) {
  return std::ranges::all_of(a, [&](int32_t e) { return std::ranges::find(b, e) != b.end(); });
}

std::vector<ExpertChange> expert_changes(const std::vector<std::vector<int32_t>>& original, const std::vector<std::vector<int32_t>>& tested,
                                         int64_t n_used) {
  std::vector<ExpertChange> changes;
  for (size_t layer = 0; layer < std::min(original.size(), tested.size()); ++layer) {
    const std::span<const int32_t> a = original[layer], b = tested[layer];
    if (a.empty() || a.size() != b.size()) continue;
    const auto k = static_cast<size_t>(n_used);
    double changed = 0.0;
    for (size_t i = 0; i < a.size(); i += k) changed += same_set(a.subspan(i, k), b.subspan(i, k)) ? 0.0 : 1.0;
    changes.push_back({static_cast<int64_t>(layer), changed * static_cast<double>(k) / static_cast<double>(a.size())});
  }
  return changes;
}

// Compares rows of `evaluator` that belong to the reference's chunks; first_sequence: where they start among its sequences.
std::vector<TokenDrift> compare_all(const Evaluator& evaluator, const OutputHead& head, size_t first_sequence,
                                    ReferenceDistribution& reference) {
  std::vector<TokenDrift> tokens;
  std::vector<float> logits;
  const int64_t batch = head.rows_at_once();
  for (size_t c = 0; c < reference.chunks().size(); ++c) {
    const auto n_ctx = static_cast<int64_t>(reference.chunks()[c].tokens.size());
    for (int64_t t = n_ctx / 2; t < n_ctx - 1; t += batch) {
      throw_if_interrupted();
      const int64_t n = std::min(batch, n_ctx - 1 - t);
      reference.begin_rows(static_cast<int64_t>(c), t, n);
      rows_logits(evaluator, head, evaluator.first_rows()[first_sequence + c] + t, n, logits);
      const size_t begin = tokens.size();
      tokens.resize(begin + static_cast<size_t>(n));
      parallel_for(n, 1, [&](int64_t first, int64_t end) {
        for (int64_t i = first; i < end; ++i) {
          const std::span<const float> row(logits.data() + i * head.n_vocab(), static_cast<size_t>(head.n_vocab()));
          tokens[begin + static_cast<size_t>(i)] = reference.compare(static_cast<int64_t>(c), t + i, row);
        }
      });
    }
  }
  return tokens;
}

}  // namespace

OriginalModel::OriginalModel(const ModelSource& source, const EvalOptions& options, std::vector<Sequence> chunks, bool noise_floor,
                             Progress& progress)
    : chunks_(std::move(chunks)), evaluator_(std::make_unique<Evaluator>(source, options)) {
  std::vector<Sequence> sequences = chunks_;
  size_t n_rows = 0;
  for (const Sequence& chunk : chunks_) {
    n_rows += chunk.tokens.size();
    if (noise_floor) sequences.push_back({chunk.tokens, true});
  }
  const Hparams& h = evaluator_->hparams();
  experts_.resize(static_cast<size_t>(h.n_layers));
  noise_experts_.resize(experts_.size());
  evaluator_->forward(std::move(sequences), progress, [&](int64_t layer, const Routing& routing) {
    const size_t own = n_rows * static_cast<size_t>(h.routing.n_used);
    experts_[static_cast<size_t>(layer)].assign(routing.experts.begin(), routing.experts.begin() + static_cast<ptrdiff_t>(own));
    noise_experts_[static_cast<size_t>(layer)].assign(routing.experts.begin() + static_cast<ptrdiff_t>(own), routing.experts.end());
  });
  evaluator_->drop_states();
  head_ = std::make_unique<OutputHead>(*evaluator_);
}

uint64_t OriginalModel::resident_bytes() const noexcept { return head_->size_bytes() + evaluator_->final_states().resident_bytes(); }

void OriginalModel::begin_rows(int64_t chunk, int64_t first, int64_t n) {
  first_position_ = first;
  rows_logits(*evaluator_, *head_, evaluator_->first_rows()[static_cast<size_t>(chunk)] + first, n, logits_);
}

TokenDrift OriginalModel::compare(int64_t chunk, int64_t t, std::span<const float> tested) const {
  std::vector<double> p, q;
  const auto n_vocab = static_cast<size_t>(head_->n_vocab());
  log_softmax(std::span(logits_).subspan(static_cast<size_t>(t - first_position_) * n_vocab, n_vocab), p);
  log_softmax(tested, q);
  const int32_t next = chunks_[static_cast<size_t>(chunk)].tokens[static_cast<size_t>(t + 1)];
  return compare_distributions(p, q, next, -std::numeric_limits<double>::infinity());
}

ModelDrift OriginalModel::noise_floor() {
  QUERN_CHECK(evaluator_->first_rows().size() == 2 * chunks_.size());
  ModelDrift drift;
  drift.tokens = compare_all(*evaluator_, *head_, chunks_.size(), *this);
  drift.statistics = drift_statistics(drift.tokens);
  drift.expert_changes = expert_changes(experts_, noise_experts_, evaluator_->hparams().routing.n_used);
  return drift;
}

void OriginalModel::for_each_row(const std::function<void(int64_t, int64_t, std::span<const float>)>& body) {
  const int64_t batch = head_->rows_at_once();
  for (size_t c = 0; c < chunks_.size(); ++c) {
    const auto n_ctx = static_cast<int64_t>(chunks_[c].tokens.size());
    for (int64_t t = n_ctx / 2; t < n_ctx - 1; t += batch) {
      const int64_t n = std::min(batch, n_ctx - 1 - t);
      begin_rows(static_cast<int64_t>(c), t, n);
      for (int64_t i = 0; i < n; ++i) {
        body(static_cast<int64_t>(c), t + i,
             std::span(logits_).subspan(static_cast<size_t>(i * n_vocab()), static_cast<size_t>(n_vocab())));
      }
    }
  }
}

void refuse_row(const std::filesystem::path& file, int64_t chunk, int64_t position, const std::string& why) {
  throw Error(ErrorKind::kFormat, "chunk " + std::to_string(chunk) + ", position " + std::to_string(position) +
                                      " is no distribution: " + why + " (the file is damaged, or the model it was made of gave NaN)")
      .file(file.string());
}

std::string tokens_sha256(const Metadata& metadata) {
  Sha256 hash;
  const MetaValue* value = metadata.find("tokenizer.ggml.tokens");
  const auto* tokens = value == nullptr ? nullptr : std::get_if<std::vector<std::string>>(value);
  for (size_t i = 0; tokens != nullptr && i < tokens->size(); ++i) {
    const uint64_t size = (*tokens)[i].size();
    hash.update(std::as_bytes(std::span(&size, 1)));
    hash.update(std::as_bytes(std::span((*tokens)[i])));
  }
  return hash.finish_hex();
}

int64_t vocabulary_size(const ModelSource& model) { return output_matrix(TensorIndex(model)).shape[0]; }

void check_vocabulary(const ModelSource& build, int64_t n_vocab) {
  const int64_t own = vocabulary_size(build);
  if (own != n_vocab) {
    throw Error(ErrorKind::kFormat, "the build has a vocabulary of " + std::to_string(own) + " tokens, the original one of " +
                                        std::to_string(n_vocab) + "; their distributions cannot be compared");
  }
}

ModelDrift measure_drift(const ModelSource& build, const EvalOptions& options, ReferenceDistribution& reference, Progress& progress) {
  check_vocabulary(build, reference.n_vocab());
  Evaluator evaluator(build, options);
  std::vector<std::vector<int32_t>> experts(static_cast<size_t>(evaluator.hparams().n_layers));
  evaluator.forward(reference.chunks(), progress, [&](int64_t layer, const Routing& routing) {
    experts[static_cast<size_t>(layer)].assign(routing.experts.begin(), routing.experts.end());
  });
  evaluator.drop_states();
  const OutputHead head(evaluator);
  ModelDrift drift;
  drift.tokens = compare_all(evaluator, head, 0, reference);
  drift.statistics = drift_statistics(drift.tokens);
  drift.expert_changes = expert_changes(reference.experts(), experts, evaluator.hparams().routing.n_used);
  drift.bytes_read = build.bytes_read();
  return drift;
}

}  // namespace quern
