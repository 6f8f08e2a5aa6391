#include <algorithm>
#include <array>

#include "formats/arch/config.h"
#include "formats/arch/families.h"
#include "formats/base/error.h"
#include "formats/base/nearest.h"

namespace quern {

namespace {

// Releases that share names with a known family but are another architecture: converting them by the family's rules would write
// files that load and are wrong.
struct Refusal {
  std::string_view hf_architecture;
  std::string_view hf_model_type;
  std::string_view reason;
};
constexpr std::array kRefusals = {
    Refusal{
        "DeepseekV41ForCausalLM", "deepseek_v41",
        "DeepSeek-V4.1 is another architecture than V4 (compression ratios 1 and 2, shared key and index sources, Engram tables, vision)"},
    Refusal{"DeepseekV32ForCausalLM", "deepseek_v32", "DeepSeek-V3.2 adds sparse attention with an indexer to V3 and is not supported"},
    Refusal{"DeepseekForCausalLM", "deepseek", "DeepSeek-MoE-16B (GGUF architecture deepseek) is not supported"},
    Refusal{"DeepseekV4DSparkModel", "deepseek_v4_dspark", "a DSpark drafter is not a language model of its own; convert the main model"},
};

std::string first_architecture(const ModelConfig& config) {
  const auto names = config.find_string_array("architectures");
  return names && !names->empty() ? names->front() : std::string();
}

void refuse_known(const std::string& architecture, const std::string& model_type) {
  for (const Refusal& refusal : kRefusals) {
    if (architecture == refusal.hf_architecture || model_type == refusal.hf_model_type) {
      throw Error(ErrorKind::kUnsupported, "config.json: " + std::string(refusal.reason));
    }
  }
}

const ArchDescriptor* find_by(std::vector<std::string_view> ArchDescriptor::*names, const std::string& name) {
  for (const ArchDescriptor& arch : all_archs()) {
    if (std::ranges::find(arch.*names, name) != (arch.*names).end()) return &arch;
  }
  return nullptr;
}

std::string suggestion(const std::string& architecture, const std::string& model_type) {
  std::vector<std::string_view> known;
  for (const ArchDescriptor& arch : all_archs()) {
    const auto& names = architecture.empty() ? arch.hf_model_types : arch.hf_architectures;
    known.insert(known.end(), names.begin(), names.end());
  }
  return did_you_mean(architecture.empty() ? model_type : architecture, known);
}

}  // namespace

std::span<const ArchDescriptor> all_archs() {
  static const std::vector<ArchDescriptor> all = [] {
    std::vector<ArchDescriptor> copies;
    for (const ArchDescriptor* family : arch::kFamilies) copies.push_back(*family);
    return copies;
  }();
  return all;
}

const ArchDescriptor& find_arch(const ModelConfig& config) {
  const std::string architecture = first_architecture(config);
  const std::string model_type = config.find_string("model_type").value_or("");
  refuse_known(architecture, model_type);
  const ArchDescriptor* arch = find_by(&ArchDescriptor::hf_architectures, architecture);
  if (arch == nullptr && architecture.empty()) arch = find_by(&ArchDescriptor::hf_model_types, model_type);
  if (arch != nullptr) return *arch;
  if (architecture.empty() && model_type.empty()) {
    throw Error(ErrorKind::kFormat, "config.json: neither 'architectures' nor 'model_type' says what the model is");
  }
  const std::string what =
      architecture.empty() ? "model_type '" + printable(model_type) + "'" : "architecture '" + printable(architecture) + "'";
  throw Error(ErrorKind::kUnsupported, "config.json: " + what + " is not supported" + suggestion(architecture, model_type));
}

}  // namespace quern
