#include "formats/safetensors/safetensors.h"

#include <algorithm>

#include "formats/arch/stems.h"
#include "formats/checkpoint/transforms.h"
#include "tests/formats/arch/arch_test_util.h"

// The rules against checkpoints on disk: every stored tensor is read by a rule, belongs to one that is (a scale), or is ignored.

namespace quern {
namespace {

namespace fs = std::filesystem;

bool is_of_a_known_family(const fs::path& folder) {
  try {
    find_arch(load_config(folder));
    return true;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUnsupported) throw;
    return false;
  }
}

// Those of the repository, which all must be known, and of the shared ones those whose family is.
std::vector<fs::path> model_folders() {
  const fs::path bundled = fs::path(QUERN_TEST_DATA) / "models";
  std::vector<fs::path> folders;
  for (const fs::path& root : {bundled, fs::path(QUERN_SHARED) / "models"}) {
    if (!fs::exists(root)) continue;
    for (const auto& entry : fs::directory_iterator(root)) {
      if (!fs::exists(entry.path() / "config.json")) continue;
      if (root == bundled || is_of_a_known_family(entry.path())) folders.push_back(entry.path());
    }
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

Shape slice_shape(const TensorRule& rule) {
  const auto dims = rule.shape.dims();
  return Shape(rule.stored.find("{e}") == std::string::npos ? dims : dims.subspan(1));
}

// Names of stored tensors that the rules read. Checks that they exist, and their shapes where the transform keeps them.
std::set<std::string, std::less<>> claim(const ArchRules& rules, const safetensors::Checkpoint& checkpoint) {
  std::set<std::string, std::less<>> claimed;
  for (const TensorRule& rule : rules.rules) {
    for (const std::string& name : checkpoint::stored_names(rule)) {
      const safetensors::StoredTensor* tensor = checkpoint.find(name);
      if (tensor == nullptr) {
        ADD_FAILURE() << name << " is not stored, " << rule.name << " needs it";
        continue;
      }
      claimed.insert(name);
      const bool packed = tensor->dtype == DType::I8;  // two FP4 codes per byte
      const bool reshaped = rule.transform != Transform::kNone && rule.transform != Transform::kPermuteHeads;
      EXPECT_TRUE(packed || reshaped || tensor->shape == slice_shape(rule)) << name << " " << tensor->shape.to_string();
    }
  }
  return claimed;
}

bool is_scale(const std::string& name, const std::set<std::string, std::less<>>& claimed) {
  for (const auto& [scale, weight] : {std::pair{".weight_scale_inv", ".weight"}, {".scale", ".weight"}, {"_scales", "_blocks"}}) {
    if (name.ends_with(scale) && claimed.contains(name.substr(0, name.size() - std::string_view(scale).size()) + weight)) return true;
  }
  return false;
}

void check_coverage(const fs::path& folder, bool mtp) {
  const ModelConfig config = load_config(folder);
  const safetensors::Checkpoint checkpoint(folder);
  const ArchDescriptor& arch = find_arch(config);
  arch.check(config);
  const HasTensor stored = [&](std::string_view name) { return checkpoint.find(name) != nullptr; };
  const ArchRules rules = arch.rules(config, mtp, stored);
  const auto claimed = claim(rules, checkpoint);
  for (const auto& tensor : checkpoint.tensors()) {
    const bool ignored = std::ranges::any_of(rules.ignored, [&](const auto& pattern) { return matches_pattern(pattern, tensor.name); });
    EXPECT_TRUE(ignored || claimed.contains(tensor.name) || is_scale(tensor.name, claimed)) << "unclaimed: " << tensor.name;
  }
}

TEST(ArchModels, RulesCoverEveryTensorOfTheModelsAtHand) {
  for (const fs::path& folder : model_folders()) {
    SCOPED_TRACE(folder.string());
    check_coverage(folder, false);
  }
}

TEST(ArchModels, MtpRulesCoverEveryTensorOfTheModelsThatHaveOne) {
  int n_models = 0;
  for (const fs::path& folder : model_folders()) {
    const ModelConfig config = load_config(folder);
    if (config.find_int("num_nextn_predict_layers", 0, 8).value_or(0) == 0) continue;
    SCOPED_TRACE(folder.string());
    check_coverage(folder, true);
    ++n_models;
  }
  EXPECT_GE(n_models, 2);
}

}  // namespace
}  // namespace quern
