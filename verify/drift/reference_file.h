#pragma once

#include <filesystem>
#include <string>

#include "formats/base/file.h"
#include "verify/drift/drift.h"

namespace quern {

// The original's distributions, cut to their most probable tokens, as HDF5 ("quern.reference/1", docs/formats/reference-store.md).
// At a vocabulary of 129,280 a row takes about 9 KB where 16 bits for every token take 259 KB.
//
// What the cut can hide is bounded rigorously. With T the stored tokens, p the tail mass and S = sum of P ln P over the tail (both
// stored), the tail's share of the divergence is S - sum P ln Q. It is at least p ln(p / Q(tail)) by the log-sum inequality, and at
// most S plus the largest value of -sum P ln Q over all tails of mass p whose members are no more probable than the least probable
// stored token: that puts as much as allowed on the tokens to which Q gives least.

inline constexpr int64_t kReferenceTop = 2048;

struct ReferenceInfo {
  std::string model;
  bool bos_first = false;
  std::string tokens_sha256;  // of its vocabulary (drift.h)
};

void write_reference_file(const std::filesystem::path& path, OriginalModel& original, const ReferenceInfo& info,
                          OutputFile::Overwrite overwrite);

// One row as stored: tokens by falling probability, ties by id.
struct ReferenceRow {
  std::vector<int32_t> ids;
  std::vector<float> log_probs;
  double tail_mass = 0.0;
  double tail_sum = 0.0;  // of P ln P
  double nll = 0.0;       // of the next token
};
// Why a row cannot be what is left of a distribution: NaN, probabilities that do not add up to 1, a token twice; empty when it can.
std::string why_no_distribution(const ReferenceRow& row, int64_t n_vocab, int32_t next_token);
ReferenceRow cut_row(std::span<const double> log_probs, int32_t next_token, int64_t n_top);
TokenDrift compare_cut(const ReferenceRow& row, std::span<const double> tested, int32_t next_token);

class ReferenceFile final : public ReferenceDistribution {
 public:
  // Throws kIo / kFormat for files that are not of this schema or whose arrays do not fit each other.
  explicit ReferenceFile(const std::filesystem::path& path);
  ~ReferenceFile() override;

  const std::vector<Sequence>& chunks() const noexcept override;
  int64_t n_vocab() const noexcept override;
  std::string tokens_sha256() const override;
  void begin_rows(int64_t chunk, int64_t first, int64_t n) override;
  TokenDrift compare(int64_t chunk, int64_t t, std::span<const float> tested) const override;
  const std::vector<std::vector<int32_t>>& experts() const noexcept override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace quern
