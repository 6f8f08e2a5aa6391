#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "verify/fit/sensitivity.h"

namespace quern {

// The best types for files of given sizes.
//
// Losses expected from the sensitivities are minimised under the size of the file (recipes/allocation.h). Because they add up only
// roughly, the proposal is then measured as a whole and so is every single step that makes one tensor larger; the losses are scaled to
// what those steps really gave, and the allocation is solved anew, as long as the measured divergence falls. In the end the result and
// the plain builds of at most its size are measured on a text that took no part in any of this, and the best of them is the answer.

// A build that fit proposes or compares itself with.
struct FitBuild {
  std::string name;
  TypeAssignment types;
  uint64_t size_bytes = 0;  // of the finished file
  double expected = 0.0;    // sum of the losses
  Estimate measured;        // KL on the measuring text; 0 for builds not measured there
  Estimate checked;         // KL on the check text
};

// Exact size of the file that holds a build, everything included.
using FileSize = std::function<uint64_t(const TypeAssignment&)>;

// The allocation for one size. losses: [tensor][candidate]. Throws kUsage with the smallest size there is when it does not fit.
FitBuild solve_types(const ModelSource& source, const Sensitivities& sensitivities, const std::vector<std::vector<double>>& losses,
                     uint64_t size_bytes, const FileSize& file_size);

// Losses scaled per tensor to what steps from `base` gave: gains[i] and gain_errors[i] are measured for a step of tensor tensors[i] from
// its type in base to steps[i]. A tensor that was not measured, or of which little is known, takes the scale of all.
std::vector<std::vector<double>> rescale_losses(const Sensitivities& sensitivities, std::vector<std::vector<double>> losses,
                                                const TypeAssignment& base, std::span<const size_t> tensors, std::span<const DType> steps,
                                                std::span<const Estimate> gains);

struct FitOptions {
  int rounds = 1;  // of measuring steps and solving again, per size
};

// One proposal per size, refined by measurements; `measured` is filled.
std::vector<FitBuild> propose_builds(const ModelSource& source, const Sensitivities& sensitivities, SimulatedBuilds& measuring,
                                     std::span<const uint64_t> sizes, const FileSize& file_size, const FitOptions& options,
                                     Progress& progress);

// Which build is best for a size, and what it was compared with.
struct FitResult {
  uint64_t limit_bytes = 0;
  FitBuild proposal;
  std::vector<FitBuild> rivals;  // plain builds of at most limit_bytes that were measured, best first
  std::optional<size_t> winner;  // the rival that is better than the proposal
};

// Measures proposals and, per size, the n_rivals plain builds that the sensitivities expect most of, on the check text.
std::vector<FitResult> check_builds(const Sensitivities& sensitivities, std::vector<FitBuild> proposals, std::vector<FitBuild> plain,
                                    std::span<const uint64_t> sizes, SimulatedBuilds& checking, size_t n_rivals, Progress& progress);

}  // namespace quern
