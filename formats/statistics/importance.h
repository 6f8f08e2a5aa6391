#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "formats/model/model_source.h"
#include "formats/statistics/imatrix.h"

namespace quern {

// What is wrong or missing in an importance matrix for one model, and what is done about it.
enum class ImportanceIssue {
  kNoEntry,      // a tensor that is quantized has none: all its columns weigh the same
  kSubstituted,  // another tensor's entry stands in (same input, or the other form of MLA)
  kUnknownName,  // an entry names no tensor of the model (another model?): ignored
  kWrongShape,   // an entry has another number of values than the tensor takes: ignored
  kBroken,       // NaN, infinite or negative sums, or nothing but zeros though tokens were counted: taken as never seen
  kUnseen,       // an expert that no token chose gets the mean over those of its tensor that were seen; a whole entry is as good as none
  kFewRows,      // an expert seen by fewer than kFewRows tokens: used as it is, drawn to that mean as if by one more row
  kLittleText,   // fewer than kLittleText rows in all
  kNoCounts      // a .dat does not say how often each expert was seen
};

struct ImportanceFinding {
  ImportanceIssue issue;
  bool serious = false;  // --strict refuses
  std::string message;   // one line, with what is done
};

// The relative standard error of a mean of n squares of normal inputs is sqrt(2 / n): 13 % at the first, 2 % at the second.
inline constexpr int64_t kFewRows = 128;
inline constexpr int64_t kLittleText = 4096;

// An importance matrix matched with the tensors of one model. Immutable and safe to share among threads.
//
// A tensor has one or more slices of equal numbers of rows with an importance of their own: the experts of a stack, the heads of
// attn_k_b and attn_v_b, the groups of deepseek4's attn_output_a. Values are means of squares, so they can be compared between tensors.
// Columns that were always zero get 1e-6 of their slice's mean, and a slice of zeros is uniform: no weight is ever free.
class Importance {
 public:
  Importance() = default;  // uniform everywhere
  // tensors: as ModelSource::tensors() lists them. Throws kFormat when the matrix is of another model: no entry fits, or more than a
  // quarter of them name no tensor or have a wrong size.
  Importance(Imatrix imatrix, std::span<const LogicalTensor> tensors);
  Importance(Importance&&) noexcept = default;
  Importance& operator=(Importance&&) noexcept = default;

  bool empty() const noexcept { return tensors_.empty(); }

  int64_t n_slices(size_t tensor) const noexcept;  // 1 for a tensor without importance
  // Means of squares, one per column, or empty: uniform. Slice s < n_slices(tensor) has the rows from s * n_rows / n_slices on.
  std::span<const float> columns(size_t tensor, int64_t slice) const noexcept;
  bool covers(size_t tensor) const noexcept { return !columns(tensor, 0).empty(); }

  std::span<const ImportanceFinding> findings() const noexcept { return findings_; }
  // Throws kGate with the serious findings, if there are any: what --strict does.
  void require_sound() const;

  const ImatrixRecord& record() const noexcept { return record_; }

 private:
  class Matcher;

  struct Slices {
    std::span<const float> means;  // [n_slices, n_columns], or one row for all slices
    int64_t n_slices = 1;
    int64_t n_columns = 0;
  };

  ImatrixRecord record_;
  std::vector<ImatrixEntry> entries_;  // sums become means where they are
  std::deque<ImatrixEntry> folded_;    // made of several slices of an entry
  std::vector<Slices> tensors_;        // one per tensor of the model
  std::vector<ImportanceFinding> findings_;
};

}  // namespace quern
