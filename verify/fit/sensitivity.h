#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/base/progress.h"
#include "quantize/tensor_encoder.h"
#include "recipes/allocation.h"
#include "verify/fit/simulated_builds.h"

namespace quern {

// What it costs a model, in KL divergence, to store a tensor in a type.
//
// Two measurements are combined. The error of a tensor as a type, weighted by the importance of its columns, is cheap and says how the
// types of one tensor compare: to second order the divergence grows in proportion to it. How much the model minds an error in this
// tensor rather than in that one only the model can say: probes are builds in which the tensors of one group alone have a type of few
// bits, everything else as in the original. With two probes of different types the exponent between error and divergence is
// measured too. What is lost adds up over the tensors as long as it is small; fit corrects the rest by measuring what it proposes.

// Tensors that are probed together: those of one name in consecutive layers.
struct ProbeGroup {
  std::string name;          // "ffn_down_exps.weight", of the layers below
  int64_t first_layer = -1;  // -1: outside the layers
  int64_t last_layer = -1;
  std::vector<size_t> tensors;  // of the model

  bool operator==(const ProbeGroup&) const = default;
};

// One measured build.
struct Probe {
  size_t group = 0;
  std::vector<DType> types;  // of the group's tensors
  double kl = 0.0;           // mean over the scored tokens
  double kl_error = 0.0;
  double reconstruction = 0.0;  // summed error of the group's tensors
};

struct Sensitivities {
  std::vector<std::vector<DType>> candidates;  // per tensor of the model, by rising size; one for those that cannot be chosen
  std::vector<std::vector<double>> errors;     // reconstruction_errors() of each candidate, 0 when every value is kept
  std::vector<ProbeGroup> groups;
  std::vector<Probe> probes;  // by group, the one of fewest bits first
};

// [tensor][candidate]: expected divergence that the choice adds.
std::vector<std::vector<double>> expected_losses(const Sensitivities& sensitivities);

// Types that a tensor may be given: those of its width that we encode and every llama.cpp runs, up to the one that holds what is
// stored. Tensors of the keep-list have only the one they keep.
std::vector<DType> candidate_types(const ModelSource& source, size_t tensor);

// The assignment in which every tensor keeps its values (rounded to BF16 where no type holds them).
TypeAssignment exact_assignment(const Sensitivities& sensitivities);

// At most max_probes builds: two per group if that many are enough for groups of one layer each, otherwise groups of as few layers
// as they allow with one build each. At least one per name of tensor is needed; max_probes below that are taken as that.
std::vector<ProbeGroup> probe_groups(const ModelSource& source, std::span<const std::vector<DType>> candidates, int64_t max_probes,
                                     int64_t& probes_per_group);

// Measures the errors of all candidates; probes are made later.
Sensitivities measure_errors(const ModelSource& source, const TensorEncoder& encoder, Progress& progress);
// The builds to be measured for the groups, and what they gave.
std::vector<TypeAssignment> probe_builds(const ModelSource& source, Sensitivities& sensitivities, int64_t max_probes);
void set_probe_results(Sensitivities& sensitivities, std::span<const std::vector<double>> kl);

// JSON of schema "quern.sensitivities/1" (docs/formats/sensitivities.md). key: what everything was measured on; reading with another
// key or damaged text throws kFormat.
std::string sensitivities_to_json(const Sensitivities& sensitivities, const ModelSource& source, std::string_view key);
Sensitivities sensitivities_from_json(std::string_view text, const ModelSource& source, std::string_view key);

}  // namespace quern
