#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <vector>

#include "convert/fill/compare.h"
#include "convert/plan/plan.h"
#include "formats/base/exact_sum.h"
#include "quantize/feedback/feedback_encoder.h"

namespace quern {

// What a run measures of the tensors that it converts. Sums are exact until they are rounded, so that any division of the work gives
// the same figures.

// How near to the source a tensor is in one output.
struct Figure {
  double squared_error = 0;  // sum over all weights
  bool exact = true;         // every weight has the bits of the source's
  Cut cut;
};

struct Figures {
  double energy = 0;  // sum of the squared weights of the source
  std::vector<Figure> outputs;
};

// Of a tensor and, when it is stacked, of each of its slices.
struct TensorFigures : Figures {
  std::vector<Figures> slices;  // empty unless stacked; those without outputs lie outside the range of chunks
};

// What figures belong to: a slice of a tensor, or all of it.
struct Unit {
  static constexpr int64_t kWhole = -1;
  size_t tensor = 0;
  int64_t slice = kWhole;
  auto operator<=>(const Unit&) const = default;
};

// The same before rounding, for a unit of which only some chunks were seen.
struct PartialFigures {
  ExactSum energy;
  std::vector<ExactSum> squared_errors;  // per output
  std::vector<bool> exact;
  std::vector<Cut> cuts;

  explicit PartialFigures(size_t n_outputs = 0) : squared_errors(n_outputs), exact(n_outputs, true), cuts(n_outputs) {}
  void add(const PartialFigures& other);
  Figures rounded() const;
};

struct PipelineResult {
  std::vector<TensorFigures> figures;      // per planned tensor; those outside the range of chunks stay empty
  std::map<Unit, PartialFigures> partial;  // tensors and slices that begin or end outside the range
  std::vector<double> encode_seconds;      // per output, processor time summed over threads
  std::vector<FeedbackLog::Outcome> feedback;
};

// Puts the figures of a unit where they belong in its tensor's.
void set_figures(const PlannedTensor& tensor, Unit unit, Figures figures, TensorFigures& all);

}  // namespace quern
