#include "verify/fit/fit.h"

#include <algorithm>
#include <cmath>

#include "formats/base/checked.h"
#include "formats/base/error.h"
#include "formats/base/resources.h"
#include "formats/gguf/gguf.h"
#include "verify/drift/perplexity.h"

// What a file holds beside its tensors contains the recipe, and so depends on the very types that are to be chosen. solve_types() therefore
// solves for the tensors alone, asks how large that file would be, and if it is too large solves again with the bytes beside the tensors
// taken off the budget. What is taken off only grows, by an alignment each time at least, until the file fits or no choice of types does.
//
// A refinement measures the proposal and, from it, one step up for each tensor that has one worth measuring. What the steps really gained
// scales the losses of their tensors. Single measurements are noisy and are drawn to the scale that all of them have together, and no
// factor leaves 0.2 to 5, so one lucky tensor cannot take the whole budget. The next solution replaces the proposal only when it measures
// better as a whole; otherwise the search ends there.
//
// The final comparison is on a text of its own. A proposal was chosen for doing well on the measuring text, so there it is partly lucky,
// and the plain builds, which were not chosen by it, would look worse beside it than they are.

namespace quern {
namespace {

size_t choice_of(const Sensitivities& sensitivities, size_t tensor, DType type) {
  const std::vector<DType>& candidates = sensitivities.candidates[tensor];
  return static_cast<size_t>(std::ranges::find(candidates, type) - candidates.begin());
}

Estimate mean_of(const std::vector<double>& values) {
  const MeanAndError mean = mean_and_error(values);
  return {mean.mean, mean.error};
}

// Mean of a - b over tokens; errors of paired values.
Estimate mean_difference(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> differences(a.size());
  for (size_t i = 0; i < a.size(); ++i) differences[i] = a[i] - b[i];
  return mean_of(differences);
}

// Types outside the candidates (a plain build may have them) count as their nearest candidate of no more bits.
double expected_loss(const Sensitivities& sensitivities, const std::vector<std::vector<double>>& losses, const TypeAssignment& types) {
  double sum = 0.0;
  for (size_t i = 0; i < types.size(); ++i) {
    const std::vector<DType>& candidates = sensitivities.candidates[i];
    size_t choice = choice_of(sensitivities, i, types[i]);
    if (choice == candidates.size()) {
      const auto above = std::ranges::find_if(candidates, [&](DType c) { return bits_per_weight(c) > bits_per_weight(types[i]); });
      choice = static_cast<size_t>(std::max<ptrdiff_t>(above - candidates.begin() - 1, 0));
    }
    sum += losses[i][choice];
  }
  return sum;
}

// One step per tensor: to the candidate of next larger size that loses less.
struct Steps {
  std::vector<size_t> tensors;
  std::vector<DType> types;
  std::vector<TypeAssignment> builds;
};

Steps steps_from(const Sensitivities& sensitivities, const std::vector<std::vector<double>>& losses, const TypeAssignment& base) {
  Steps steps;
  for (size_t i = 0; i < base.size(); ++i) {
    const size_t chosen = choice_of(sensitivities, i, base[i]);
    size_t next = chosen + 1;
    // A step worth measuring: a third of the loss or more.
    while (next < sensitivities.candidates[i].size() && losses[i][next] > 0.67 * losses[i][chosen]) ++next;
    if (next >= sensitivities.candidates[i].size() || losses[i][chosen] <= 0.0) continue;
    steps.tensors.push_back(i);
    steps.types.push_back(sensitivities.candidates[i][next]);
    steps.builds.push_back(base);
    steps.builds.back()[i] = steps.types.back();
  }
  return steps;
}

}  // namespace

FitBuild solve_types(const ModelSource& source, const Sensitivities& sensitivities, const std::vector<std::vector<double>>& losses,
                     uint64_t size_bytes, const FileSize& file_size) {
  const auto padded = [&](size_t tensor, DType type) {
    return align_up(tensor_size_bytes(type, source.tensors()[tensor].shape), gguf::kDefaultAlignment);
  };
  std::vector<AllocationItem> items(losses.size());
  for (size_t i = 0; i < items.size(); ++i) {
    for (size_t c = 0; c < losses[i].size(); ++c) items[i].push_back({padded(i, sensitivities.candidates[i][c]), losses[i][c]});
  }
  // What the file holds beside tensors depends on the recipe in it, and so on the result; a few rounds settle it.
  uint64_t overhead = 0;
  constexpr int kMaxRounds = 16;
  for (int round = 0; round < kMaxRounds; ++round) {
    const std::optional<std::vector<size_t>> chosen = allocate(items, size_bytes > overhead ? size_bytes - overhead : 0);
    FitBuild build;
    uint64_t tensor_bytes = 0;
    for (size_t i = 0; i < items.size(); ++i) {
      const auto smallest = std::ranges::min_element(items[i], {}, &AllocationChoice::size_bytes) - items[i].begin();
      const size_t choice = chosen ? (*chosen)[i] : static_cast<size_t>(smallest);
      build.types.push_back(sensitivities.candidates[i][choice]);
      build.expected += losses[i][choice];
      tensor_bytes += items[i][choice].size_bytes;
    }
    build.size_bytes = file_size(build.types);
    if (build.size_bytes <= size_bytes) return build;
    if (!chosen) {
      throw Error(ErrorKind::kUsage, "no choice of types fits " + std::to_string(size_bytes) + " bytes; the smallest file has " +
                                         std::to_string(build.size_bytes) + " (" + format_size(build.size_bytes) + ")");
    }
    overhead = std::max(overhead + gguf::kDefaultAlignment, build.size_bytes - tensor_bytes);
  }
  throw Error(ErrorKind::kInternal, "the size of the file does not settle");
}

std::vector<std::vector<double>> rescale_losses(const Sensitivities& sensitivities, std::vector<std::vector<double>> losses,
                                                const TypeAssignment& base, std::span<const size_t> tensors, std::span<const DType> steps,
                                                std::span<const Estimate> gains) {
  // gain = scale * expected gain + noise; the scale of all tensors by least squares, those of single tensors drawn to it as if it were
  // known to within half of itself.
  std::vector<double> expected(tensors.size());
  double products = 0.0, squares = 0.0;
  for (size_t k = 0; k < tensors.size(); ++k) {
    const size_t i = tensors[k];
    expected[k] = losses[i][choice_of(sensitivities, i, base[i])] - losses[i][choice_of(sensitivities, i, steps[k])];
    products += gains[k].value * expected[k];
    squares += expected[k] * expected[k];
  }
  if (!(products > 0.0 && squares > 0.0)) return losses;
  const double scale = products / squares;
  constexpr double kSpread = 0.5, kLeast = 0.2, kMost = 5.0;
  for (size_t k = 0; k < tensors.size(); ++k) {
    const double prior = 1.0 / (kSpread * scale * kSpread * scale);
    const double noise = std::max(gains[k].error, 1e-3 * std::abs(gains[k].value));
    const double data = noise > 0.0 ? expected[k] / (noise * noise) : 0.0;
    const double own = (prior * scale + data * gains[k].value) / (prior + data * expected[k]);
    const double factor = std::clamp(own / scale, kLeast, kMost);
    for (double& loss : losses[tensors[k]]) loss *= factor;
  }
  return losses;
}

std::vector<FitBuild> propose_builds(const ModelSource& source, const Sensitivities& sensitivities, SimulatedBuilds& measuring,
                                     std::span<const uint64_t> sizes, const FileSize& file_size, const FitOptions& options,
                                     Progress& progress) {
  const std::vector<std::vector<double>> first_losses = expected_losses(sensitivities);
  std::vector<FitBuild> proposals;
  for (const uint64_t size : sizes) proposals.push_back(solve_types(source, sensitivities, first_losses, size, file_size));
  for (size_t s = 0; s < sizes.size(); ++s) {
    FitBuild& best = proposals[s];
    std::vector<std::vector<double>> losses = first_losses;
    for (int round = 0; round < options.rounds; ++round) {
      Steps steps = steps_from(sensitivities, losses, best.types);
      steps.builds.insert(steps.builds.begin(), best.types);
      const std::vector<std::vector<double>> kl = measuring.measure(steps.builds, progress);
      best.measured = mean_of(kl.front());
      std::vector<Estimate> gains;
      for (size_t k = 1; k < kl.size(); ++k) gains.push_back(mean_difference(kl.front(), kl[k]));
      losses = rescale_losses(sensitivities, std::move(losses), best.types, steps.tensors, steps.types, gains);
      FitBuild next = solve_types(source, sensitivities, losses, sizes[s], file_size);
      if (next.types == best.types) break;
      next.measured = mean_of(measuring.measure(std::span(&next.types, 1), progress).front());
      if (next.measured.value >= best.measured.value) break;
      best = std::move(next);
    }
    if (options.rounds == 0) best.measured = mean_of(measuring.measure(std::span(&best.types, 1), progress).front());
  }
  return proposals;
}

std::vector<FitResult> check_builds(const Sensitivities& sensitivities, std::vector<FitBuild> proposals, std::vector<FitBuild> plain,
                                    std::span<const uint64_t> sizes, SimulatedBuilds& checking, size_t n_rivals, Progress& progress) {
  const std::vector<std::vector<double>> losses = expected_losses(sensitivities);
  for (FitBuild& build : plain) build.expected = expected_loss(sensitivities, losses, build.types);
  std::ranges::stable_sort(plain, {}, &FitBuild::expected);
  std::vector<TypeAssignment> builds;  // without repetition
  const auto number = [&](const TypeAssignment& types) {
    const auto found = std::ranges::find(builds, types);
    if (found != builds.end()) return static_cast<size_t>(found - builds.begin());
    builds.push_back(types);
    return builds.size() - 1;
  };
  std::vector<FitResult> results;
  std::vector<std::vector<size_t>> numbers;
  for (size_t s = 0; s < sizes.size(); ++s) {
    FitResult result{sizes[s], std::move(proposals[s]), {}, std::nullopt};
    numbers.push_back({number(result.proposal.types)});
    for (const FitBuild& build : plain) {
      if (build.size_bytes > sizes[s] || result.rivals.size() == n_rivals) continue;
      if (std::ranges::find(result.rivals, build.types, &FitBuild::types) != result.rivals.end()) continue;  // under another name
      result.rivals.push_back(build);
      numbers.back().push_back(number(build.types));
    }
    results.push_back(std::move(result));
  }
  const std::vector<std::vector<double>> kl = checking.measure(builds, progress);
  for (size_t s = 0; s < results.size(); ++s) {
    FitResult& result = results[s];
    result.proposal.checked = mean_of(kl[numbers[s].front()]);
    for (size_t r = 0; r < result.rivals.size(); ++r) result.rivals[r].checked = mean_of(kl[numbers[s][r + 1]]);
    std::ranges::stable_sort(result.rivals, {}, [](const FitBuild& b) { return b.checked.value; });
    if (!result.rivals.empty() && result.rivals.front().checked.value < result.proposal.checked.value) result.winner = 0;
  }
  return results;
}

}  // namespace quern
