#include "recipes/machines.h"

#include <algorithm>
#include <vector>

#include "formats/base/error.h"
#include "formats/base/nearest.h"

namespace quern {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr double kGB = 1e9;
// Left to macOS when the limit is raised, to another system, and to the display and the driver of a graphics card.
constexpr uint64_t kLeftToMac = 8 * kGiB;
constexpr uint64_t kLeftToSystem = 4 * kGiB;
constexpr uint64_t kLeftToCard = kGiB;
constexpr double kDualDdr5 = 89.6 * kGB;  // two channels of DDR5-5600

Machine mac(std::string id, std::string name, uint64_t gib, double gb_per_second) {
  Machine machine{std::move(id), std::move(name), gib * kGiB, gb_per_second * kGB};
  machine.wired_limit = true;
  return machine;
}

Machine with_card(std::string id, std::string name, uint64_t gib, uint64_t card_gib, double card_gb_per_second) {
  return {std::move(id), std::move(name), gib * kGiB, kDualDdr5, card_gib * kGiB, card_gb_per_second * kGB};
}

// Apple: technical specifications of the models; NVIDIA: product pages of the cards.
const std::vector<Machine> kMachines = {
    mac("macbook-m4-max-64", "MacBook Pro M4 Max 64 GB", 64, 546),
    mac("macbook-m2-max-96", "MacBook Pro M2 Max 96 GB", 96, 400),
    mac("macbook-m4-max-128", "MacBook Pro M4 Max 128 GB", 128, 546),
    mac("mac-m3-ultra-96", "Mac Studio M3 Ultra 96 GB", 96, 819),
    mac("mac-m3-ultra-256", "Mac Studio M3 Ultra 256 GB", 256, 819),
    mac("mac-m3-ultra-512", "Mac Studio M3 Ultra 512 GB", 512, 819),
    with_card("rtx4090-ram64", "RTX 4090 24 GB + 64 GB DDR5", 64, 24, 1008),
    with_card("rtx4090-ram128", "RTX 4090 24 GB + 128 GB DDR5", 128, 24, 1008),
    with_card("rtx5090-ram128", "RTX 5090 32 GB + 128 GB DDR5", 128, 32, 1792),
    with_card("rtx5090-ram192", "RTX 5090 32 GB + 192 GB DDR5", 192, 32, 1792),
};

uint64_t less(uint64_t bytes, uint64_t kept) { return bytes > kept ? bytes - kept : 0; }

// Seconds per token with everything in one memory.
double seconds_in_one(const Machine& machine, const RunCost& cost) {
  return static_cast<double>(cost.weights.active_bytes() + cost.cache.read_bytes) / machine.bandwidth;
}

double seconds_on_card(const Machine& machine, const RunCost& cost) {
  const auto card = static_cast<double>(less(machine.gpu_bytes, kLeftToCard));
  const auto fixed = static_cast<double>(cost.weights.always_bytes + cost.cache.size_bytes + cost.scratch_bytes);
  const auto fixed_read = static_cast<double>(cost.weights.always_bytes + cost.cache.read_bytes);
  const auto experts = static_cast<double>(cost.weights.expert_bytes);
  const auto active = static_cast<double>(cost.weights.active_expert_bytes);
  const double share = std::min(1.0, card / std::max(fixed, 1.0));
  const double expert_share = share < 1 || experts == 0 ? 0 : std::min(1.0, (card - fixed) / experts);
  const double on_card = share * fixed_read + expert_share * active;
  return on_card / machine.gpu_bandwidth + (fixed_read + active - on_card) / machine.bandwidth;
}

}  // namespace

// macOS lets the GPU wire two thirds of up to 36 GB and three quarters of more.
uint64_t Machine::usable_bytes() const noexcept {
  if (wired_limit) return memory_bytes <= 36 * kGiB ? memory_bytes / 3 * 2 : memory_bytes / 4 * 3;
  return most_usable_bytes();
}

uint64_t Machine::most_usable_bytes() const noexcept {
  if (wired_limit) return less(memory_bytes, kLeftToMac);
  return gpu_bytes == 0 ? memory_bytes : less(memory_bytes, kLeftToSystem) + less(gpu_bytes, kLeftToCard);
}

std::span<const Machine> all_machines() { return kMachines; }

const Machine* find_machine(std::string_view id) noexcept {
  const auto found = std::find_if(kMachines.begin(), kMachines.end(), [&](const Machine& machine) { return same_name(machine.id, id); });
  return found == kMachines.end() ? nullptr : &*found;
}

const Machine& get_machine(std::string_view id) {
  if (const Machine* machine = find_machine(id)) return *machine;
  std::vector<std::string_view> ids;
  for (const Machine& machine : kMachines) ids.push_back(machine.id);
  throw Error(ErrorKind::kUsage, "unknown machine '" + printable(id) + "'" + known_names(id, ids));
}

Machine custom_machine(uint64_t memory_bytes, double bandwidth) { return {"custom", "the given machine", memory_bytes, bandwidth}; }

MachineFit fit_on(const Machine& machine, const RunCost& cost) {
  const auto need = static_cast<int64_t>(cost.total_bytes());
  const int64_t left = static_cast<int64_t>(machine.usable_bytes()) - need;
  const int64_t most_left = static_cast<int64_t>(machine.most_usable_bytes()) - need;
  const double seconds = machine.gpu_bytes > 0 ? seconds_on_card(machine, cost) : seconds_in_one(machine, cost);
  if (left >= 0) return {MachineFit::Verdict::kFits, left, 1 / seconds};
  if (most_left >= 0) return {MachineFit::Verdict::kFitsWithRaisedLimit, most_left, 1 / seconds};
  return {MachineFit::Verdict::kTooLarge, most_left, 0};
}

}  // namespace quern
