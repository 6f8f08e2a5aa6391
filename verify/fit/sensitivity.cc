#include "verify/fit/sensitivity.h"

#include <algorithm>
#include <cmath>

#include "formats/arch/stems.h"
#include "formats/base/error.h"
#include "quantize/reconstruction.h"
#include "recipes/mix.h"
#include "recipes/type_ladder.h"
#include "verify/drift/perplexity.h"

// What is measured and what is computed: every candidate of every tensor is encoded once, which gives its reconstruction error; a few
// builds are run (probes), which give what errors in a group of tensors cost in divergence. A probe's cost is shared among its
// tensors by their part in its error, and carried to the other candidates by a power of theirs: the exponent is 1 in theory, and measured
// between two probes where there are two. Groups are bands of layers as narrow as the number of probes allows.

namespace quern {
namespace {

// The probe of fewest bits is far above what the perturbed routing of a mixture of experts adds to every build; the other is where
// most tensors of a build of 3 to 4 bits are.
constexpr DType kProbeTypes[] = {DType::IQ2_XS, DType::IQ3_S};

// The candidate nearest to `type` in size among those that lose something, the first of equals.
size_t nearest_candidate(std::span<const DType> candidates, std::span<const double> errors, DType type) {
  size_t nearest = 0;
  const auto distance = [&](size_t c) { return errors[c] > 0.0 ? std::abs(bits_per_weight(candidates[c]) - bits_per_weight(type)) : 1e9; };
  for (size_t c = 1; c < candidates.size(); ++c) {
    if (distance(c) < distance(nearest)) nearest = c;
  }
  return nearest;
}

}  // namespace

std::vector<DType> candidate_types(const ModelSource& source, size_t tensor) {
  const LogicalTensor& info = source.tensors()[tensor];
  if (const std::optional<DType> kept = kept_type(info, DType::Q8_0)) return {*kept};
  const int64_t width = info.shape.row_length();
  // What holds the stored values, or BF16, which is as near as a checkpoint in FP8 with scales of any value can be.
  DType exact = info.source_type;
  if (traits(exact).gguf_id < 0 || (exact != DType::F32 && exact != DType::F16 && !source.can_copy(tensor, exact))) exact = DType::BF16;
  std::vector<DType> types = {exact};
  for (const TypeStep& step : type_ladder()) {
    const bool smaller = step.type != exact && bits_per_weight(step.type) < bits_per_weight(exact);
    if (step.fit_candidate && smaller && width % traits(step.type).block_weights == 0) types.push_back(step.type);
  }
  std::ranges::stable_sort(types, {}, [](DType t) { return bits_per_weight(t); });
  return types;
}

TypeAssignment exact_assignment(const Sensitivities& sensitivities) {
  TypeAssignment types;
  for (const std::vector<DType>& of_tensor : sensitivities.candidates) types.push_back(of_tensor.back());
  return types;
}

Sensitivities measure_errors(const ModelSource& source, const TensorEncoder& encoder, Progress& progress) {
  Sensitivities result;
  uint64_t total = 0;
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    result.candidates.push_back(candidate_types(source, i));
    total += result.candidates.back().size() - 1;
  }
  progress.begin("comparing types", total);
  for (size_t i = 0; i < result.candidates.size(); ++i) {
    const std::span<const DType> types = result.candidates[i];
    // The last one keeps what there is.
    std::vector<double> errors =
        types.size() == 1 ? std::vector<double>() : reconstruction_errors(source, i, types.first(types.size() - 1), encoder);
    if (std::ranges::any_of(errors, [](double error) { return !std::isfinite(error); })) {
      throw Error(ErrorKind::kFormat, "has weights that are NaN or infinite, so no type is nearer to it than another")
          .tensor(source.tensors()[i].name);
    }
    errors.push_back(0.0);
    result.errors.push_back(std::move(errors));
    progress.step(source.tensors()[i].name);
    progress.advance(types.size() - 1);
  }
  progress.end();
  return result;
}

std::vector<ProbeGroup> probe_groups(const ModelSource& source, std::span<const std::vector<DType>> candidates, int64_t max_probes,
                                     int64_t& probes_per_group) {
  int64_t n_layers = 0;
  for (const LogicalTensor& tensor : source.tensors()) n_layers = std::max(n_layers, tensor.layer + 1);
  const auto groups_of = [&](int64_t n_bands) {
    std::map<std::pair<int64_t, std::string>, ProbeGroup> groups;  // by band, so that builds of one depth are neighbours
    for (size_t i = 0; i < candidates.size(); ++i) {
      if (candidates[i].size() < 2) continue;
      const LogicalTensor& tensor = source.tensors()[i];
      const int64_t band = tensor.layer < 0 ? -1 : tensor.layer * n_bands / n_layers;
      ProbeGroup& group = groups[{band, std::string(split_block_name(tensor.name).name)}];
      if (group.tensors.empty()) group.first_layer = tensor.layer;
      group.name = split_block_name(tensor.name).name;
      group.last_layer = tensor.layer;
      group.tensors.push_back(i);
    }
    std::vector<ProbeGroup> list;
    for (auto& [key, group] : groups) list.push_back(std::move(group));
    return list;
  };
  std::vector<ProbeGroup> groups = groups_of(std::max<int64_t>(n_layers, 1));
  probes_per_group = std::ssize(groups) * 2 <= max_probes ? 2 : 1;
  for (int64_t n_bands = n_layers - 1; n_bands > 0 && std::ssize(groups) > max_probes; --n_bands) groups = groups_of(n_bands);
  return groups;
}

std::vector<TypeAssignment> probe_builds(const ModelSource& source, Sensitivities& sensitivities, int64_t max_probes) {
  int64_t per_group = 1;
  sensitivities.groups = probe_groups(source, sensitivities.candidates, max_probes, per_group);
  sensitivities.probes.clear();
  std::vector<TypeAssignment> builds;
  for (size_t g = 0; g < sensitivities.groups.size(); ++g) {
    for (const DType wanted : std::span(kProbeTypes).first(static_cast<size_t>(per_group))) {
      Probe probe;
      probe.group = g;
      TypeAssignment build = exact_assignment(sensitivities);
      for (const size_t tensor : sensitivities.groups[g].tensors) {
        const size_t chosen = nearest_candidate(sensitivities.candidates[tensor], sensitivities.errors[tensor], wanted);
        build[tensor] = sensitivities.candidates[tensor][chosen];
        probe.types.push_back(build[tensor]);
        probe.reconstruction += sensitivities.errors[tensor][chosen];
      }
      // Narrow rows may have no second type in this range.
      const bool known =
          !sensitivities.probes.empty() && sensitivities.probes.back().group == g && sensitivities.probes.back().types == probe.types;
      if (known || probe.reconstruction <= 0.0) continue;
      sensitivities.probes.push_back(std::move(probe));
      builds.push_back(std::move(build));
    }
  }
  return builds;
}

void set_probe_results(Sensitivities& sensitivities, std::span<const std::vector<double>> kl) {
  QUERN_CHECK(kl.size() == sensitivities.probes.size());
  for (size_t i = 0; i < kl.size(); ++i) {
    const MeanAndError mean = mean_and_error(kl[i]);
    sensitivities.probes[i].kl = mean.mean;
    sensitivities.probes[i].kl_error = mean.error;
  }
}

namespace {

// What one tensor of a group loses as each of its candidates. own: the probes of the group; member: the tensor's place in it.
std::vector<double> tensor_losses(const Sensitivities& all, size_t tensor, size_t member, std::span<const Probe> own) {
  const std::vector<DType>& candidates = all.candidates[tensor];
  const auto error_in = [&](const Probe& probe) {
    return all.errors[tensor][static_cast<size_t>(std::ranges::find(candidates, probe.types[member]) - candidates.begin())];
  };
  const Probe &low = own.front(), &high = own.back();
  // Between two probes the exponent is what they say, held near the 1 of a small error because both are noisy; below the finer probe
  // it is 1.
  double exponent = 1.0;
  if (own.size() > 1 && low.kl > 0.0 && high.kl > 0.0 && high.reconstruction < low.reconstruction) {
    exponent = std::clamp(std::log(low.kl / high.kl) / std::log(low.reconstruction / high.reconstruction), 0.7, 1.4);
  }
  const double low_error = error_in(low), high_error = std::min(error_in(high), low_error);
  std::vector<double> losses;
  for (const double error : all.errors[tensor]) {
    if (low_error <= 0.0 || error <= 0.0) {
      losses.push_back(0.0);
      continue;
    }
    const double from = own.size() > 1 && error < high_error ? high_error : error;  // where the exponent holds
    losses.push_back(low.kl * (low_error / low.reconstruction) * std::pow(from / low_error, exponent) * (error / from));
  }
  return losses;
}

}  // namespace

std::vector<std::vector<double>> expected_losses(const Sensitivities& sensitivities) {
  std::vector<std::vector<double>> losses;
  for (const std::vector<double>& errors : sensitivities.errors) losses.emplace_back(errors.size());
  const std::span<const Probe> probes = sensitivities.probes;
  for (size_t first = 0, end = 0; first < probes.size(); first = end) {
    while (end < probes.size() && probes[end].group == probes[first].group) ++end;
    const std::vector<size_t>& tensors = sensitivities.groups[probes[first].group].tensors;
    for (size_t i = 0; i < tensors.size(); ++i)
      losses[tensors[i]] = tensor_losses(sensitivities, tensors[i], i, probes.subspan(first, end - first));
  }
  return losses;
}

}  // namespace quern
