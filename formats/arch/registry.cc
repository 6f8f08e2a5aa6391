#include <algorithm>
#include <array>

#include "formats/arch/config.h"
#include "formats/arch/families.h"
#include "formats/base/error.h"

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

// The word that a class name begins with: "Qwen" of "Qwen2MoeForCausalLM". Empty when it is too short to mean a family.
std::string_view family_word(std::string_view architecture) {
  constexpr size_t kShortest = 4;
  size_t end = 1;
  while (end < architecture.size() && architecture[end] >= 'a' && architecture[end] <= 'z') ++end;
  return end < kShortest || end > architecture.size() ? std::string_view() : architecture.substr(0, end);
}

// Nobody types the name of a class, so that an unknown one is another model and no slip: the classes of its family are named as such.
std::string supported_relatives(std::string_view architecture) {
  const std::string_view word = family_word(architecture);
  std::string list;
  for (const ArchDescriptor& arch : all_archs()) {
    for (const std::string_view name : arch.hf_architectures) {
      if (!word.empty() && family_word(name) == word) list += (list.empty() ? "" : ", ") + std::string(name);
    }
  }
  if (list.empty()) return "; docs/convert.md lists the classes that are";
  return "; of this family " + list + (list.find(',') == list.npos ? " is" : " are") +
         ", but that is another model: with its name in config.json this one would be converted wrongly";
}

std::string in_words(const ModelConfig::Wrapper& wrapper) {
  const std::string name = wrapper.architecture.empty() ? wrapper.model_type : wrapper.architecture;
  std::string text = name.empty() ? "the model" : "'" + printable(name) + "'";
  text += " is more than a language model: it has one in '" + wrapper.nested + "'";
  for (size_t i = 0; i < wrapper.siblings.size(); ++i) text += (i == 0 ? " beside '" : ", '") + printable(wrapper.siblings[i]) + "'";
  return text;
}

// The language model inside would be found by its own class, but its tensors are not stored as that class stores them, and who converts
// the whole expects the whole.
void refuse_unknown_wrapper(const ModelConfig& config, const std::string& language_model) {
  const auto& wrapper = config.wrapper();
  if (!wrapper || find_by(&ArchDescriptor::hf_architectures, wrapper->architecture) != nullptr) return;
  if (wrapper->architecture.empty() && find_by(&ArchDescriptor::hf_model_types, wrapper->model_type) != nullptr) return;
  if (wrapper->architecture.empty() && wrapper->model_type.empty() && wrapper->siblings.empty()) return;
  const bool known = find_by(&ArchDescriptor::hf_architectures, language_model) != nullptr ||
                     find_by(&ArchDescriptor::hf_model_types, language_model) != nullptr;
  throw Error(ErrorKind::kUnsupported,
              "config.json: " + in_words(*wrapper) + ", and is not supported" +
                  (known ? "; that one is a " + printable(language_model) + ", which can be converted when it is saved by itself" : ""));
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
  refuse_unknown_wrapper(config, architecture.empty() ? model_type : architecture);
  const ArchDescriptor* arch = find_by(&ArchDescriptor::hf_architectures, architecture);
  if (arch == nullptr && architecture.empty()) arch = find_by(&ArchDescriptor::hf_model_types, model_type);
  if (arch != nullptr) return *arch;
  if (architecture.empty() && model_type.empty()) {
    throw Error(ErrorKind::kFormat, "config.json: neither 'architectures' nor 'model_type' says what the model is");
  }
  const std::string what =
      architecture.empty() ? "model_type '" + printable(model_type) + "'" : "architecture '" + printable(architecture) + "'";
  throw Error(ErrorKind::kUnsupported, "config.json: " + what + " is not supported" + supported_relatives(architecture));
}

}  // namespace quern
