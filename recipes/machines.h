#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "recipes/size_estimate.h"

namespace quern {

// Machines that people run large models on, and what a build leaves free on each.

// Sizes are powers of 1024, as memory is sold; bandwidths are the makers' figures in bytes per second.
struct Machine {
  std::string id;    // "mac-m3-ultra-256"
  std::string name;  // "Mac Studio M3 Ultra 256 GB"
  uint64_t memory_bytes = 0;
  double bandwidth = 0;    // of that memory
  uint64_t gpu_bytes = 0;  // memory of a graphics card beside it; 0: one memory for everything
  double gpu_bandwidth = 0;
  bool wired_limit = false;  // macOS: how much of the memory the GPU may use is a setting

  // What a model may use as the machine comes, and with the macOS limit raised.
  uint64_t usable_bytes() const noexcept;
  uint64_t most_usable_bytes() const noexcept;
};

std::span<const Machine> all_machines();
const Machine* find_machine(std::string_view id) noexcept;  // case-insensitive
// Throws kUsage with the nearest known id.
const Machine& get_machine(std::string_view id);
// One memory of which a model may use everything.
Machine custom_machine(uint64_t memory_bytes, double bandwidth);

struct MachineFit {
  enum class Verdict { kFits, kFitsWithRaisedLimit, kTooLarge };
  Verdict verdict = Verdict::kTooLarge;
  int64_t left_bytes = 0;        // of what the verdict counts with; negative: missing
  double tokens_per_second = 0;  // an upper bound, from bytes read per token and bandwidth; 0 when it is too large
};

// With a graphics card, weights that every token reads, the cache and scratch go there first, then as many experts as there is room.
MachineFit fit_on(const Machine& machine, const RunCost& cost);

}  // namespace quern
