#include "recipes/recipe.h"

#include <algorithm>
#include <map>
#include <utility>

#include "formats/arch/stems.h"
#include "formats/base/error.h"
#include "formats/base/name_pattern.h"
#include "formats/base/nearest.h"
#include "recipes/type_ladder.h"

// Rules are tried in order and the first that matches a tensor decides. Above them stands the architecture's keep-list, which only
// override_keep can lift, and only from 16-bit matrices. A rule may name a mix: the whole mix is then applied to the whole model once,
// because its rules count layers over all tensors, and the rule takes from the result what it gives this one. A type whose blocks
// do not divide the row falls back last, to what the rule lists, else to what llama-quantize would take.

namespace quern {
namespace {

constexpr std::pair<Role, std::string_view> kRoleNames[] = {
    {Role::kTokenEmbedding, "embedding"},
    {Role::kOutput, "output"},
    {Role::kAttention, "attention"},
    {Role::kDenseFfn, "dense-ffn"},
    {Role::kRoutedExpert, "routed-expert"},
    {Role::kSharedExpert, "shared-expert"},
    {Role::kRouter, "router"},
    {Role::kIndexer, "indexer"},
    {Role::kCompressor, "compressor"},
    {Role::kHyperConnection, "hyper-connection"},
    {Role::kMtp, "mtp"},
    {Role::kNorm, "norm"},
    {Role::kBias, "bias"},
    {Role::kOther, "other"},
};

constexpr std::string_view kMixPrefix = "mix:";

[[noreturn]] void unknown_type(std::string_view text) {
  std::vector<std::string> names = {"source", "lossless"};
  for (int id = 0; id < 64; ++id) {
    const std::optional<DType> type = find_dtype_by_gguf_id(id);
    if (type && find_step(*type) != nullptr) names.emplace_back(name_of(*type));
  }
  for (const Mix& mix : all_mixes()) names.push_back(std::string(kMixPrefix) + std::string(mix.name));
  const std::vector<std::string_view> candidates(names.begin(), names.end());
  throw Error(ErrorKind::kUsage, "unknown type '" + printable(text) + "'" + did_you_mean(text, candidates));
}

// What rules ask of a model.
struct ModelFacts {
  int64_t n_layers = 0;
  ModelKind kind = ModelKind::kDense;
};

ModelFacts model_facts(const Metadata& metadata, std::span<const LogicalTensor> tensors) {
  const std::string arch = metadata.find_string("general.architecture").value_or("");
  ModelFacts facts;
  facts.n_layers = metadata.find_int(arch + ".block_count").value_or(0);
  for (const LogicalTensor& tensor : tensors) {
    facts.n_layers = std::max(facts.n_layers, tensor.layer + 1);
    if (tensor.role == Role::kRoutedExpert) facts.kind = ModelKind::kMoe;
  }
  return facts;
}

// A rule with its pattern compiled.
class Matcher {
 public:
  Matcher(const RecipeRule& rule, const ModelFacts& facts) : rule_(&rule), facts_(facts) {
    if (!rule.name.empty()) pattern_.emplace(rule.name);
  }

  bool matches(const LogicalTensor& tensor) const {
    const auto holds = [](const auto& list, const auto& value) {
      return list.empty() || std::find(list.begin(), list.end(), value) != list.end();
    };
    if (!holds(rule_->roles, tensor.role) || !holds(rule_->parts, tensor_part(tensor.name))) return false;
    if (!holds(rule_->sources, tensor.source_type)) return false;
    if (rule_->model != ModelKind::kAny && rule_->model != facts_.kind) return false;
    const auto in_range = [&](const LayerRange& range) { return range.contains(tensor.layer, facts_.n_layers); };
    if (!rule_->layers.empty() && std::none_of(rule_->layers.begin(), rule_->layers.end(), in_range)) return false;
    return !pattern_ || pattern_->found_in(tensor.name);
  }

 private:
  const RecipeRule* rule_;
  ModelFacts facts_;
  std::optional<NamePattern> pattern_;
};

std::string rule_label(const Recipe& recipe, size_t rule) { return "recipe " + recipe.name + ": rule " + std::to_string(rule + 1); }

// Types by the rules of a recipe, for one model.
class Chooser {
 public:
  Chooser(const Recipe& recipe, const Metadata& metadata, std::span<const LogicalTensor> tensors, bool have_imatrix,
          const AskExactness& exactness)
      : recipe_(recipe), tensors_(tensors), have_imatrix_(have_imatrix), exactness_(exactness) {
    const ModelFacts facts = model_facts(metadata, tensors);
    for (size_t r = 0; r < recipe.rules.size(); ++r) {
      add_rule(r, facts);
      const Mix* mix = recipe.rules[r].type.mix;
      if (mix != nullptr && mixes_.count(mix) == 0) mixes_[mix] = choose_types(*mix, metadata, tensors, have_imatrix);
    }
  }

  std::vector<TypeChoice> choose() {
    std::vector<TypeChoice> choices;
    choices.reserve(tensors_.size());
    for (size_t k = 0; k < tensors_.size(); ++k) choices.push_back(choose(k));
    if (!refused_.empty()) refuse_lossless();
    return choices;
  }

 private:
  void add_rule(size_t rule, const ModelFacts& facts) {
    try {
      matchers_.emplace_back(recipe_.rules[rule], facts);
    } catch (const Error& error) {
      throw Error(error.kind(), rule_label(recipe_, rule) + ": " + error.message());
    }
  }

  // The keep-list stands above rules, but for those that say otherwise of 16-bit matrices. Mixes and "lossless" know it themselves.
  TypeChoice choose(size_t k) {
    const LogicalTensor& tensor = tensors_[k];
    const std::optional<DType> kept = kept_type(tensor, DType::Q8_0);
    const bool may_override = tensor.keep == Keep::kSource && tensor.shape.rank() >= 2;
    for (size_t r = 0; r < matchers_.size(); ++r) {
      const RecipeRule& rule = recipe_.rules[r];
      const bool knows = rule.type.kind == RecipeType::Kind::kMix || rule.type.kind == RecipeType::Kind::kLossless;
      if (kept && !knows && !(rule.override_keep && may_override)) continue;
      if (matchers_[r].matches(tensor)) return apply(r, k);
    }
    if (kept) return {*kept, "keep-list"};
    throw Error(ErrorKind::kUsage, "recipe " + recipe_.name + ": no rule matches; a last rule without conditions decides the rest")
        .tensor(tensor.name);
  }

  TypeChoice apply(size_t r, size_t k) {
    const RecipeRule& rule = recipe_.rules[r];
    const LogicalTensor& tensor = tensors_[k];
    const auto number = static_cast<int64_t>(r);
    if (rule.needs_importance && !have_imatrix_) {
      throw Error(ErrorKind::kUsage,
                  rule_label(recipe_, r) + " (" + to_string(rule.type) + ") requires an importance matrix; add --imatrix")
          .tensor(tensor.name);
    }
    switch (rule.type.kind) {
      case RecipeType::Kind::kMix: {
        const TypeChoice& of_mix = mixes_.at(rule.type.mix)[k];
        return {of_mix.type, of_mix.why, number, of_mix.wanted};
      }
      case RecipeType::Kind::kLossless:
        return {lossless_type(k), "recipe", number};
      case RecipeType::Kind::kSource:
        return {tensor.source_type, "recipe", number};
      case RecipeType::Kind::kType:
        break;
    }
    return fit({rule.type.type, "recipe", number}, rule, tensor);
  }

  static TypeChoice fit(TypeChoice choice, const RecipeRule& rule, const LogicalTensor& tensor) {
    const int64_t row_length = tensor.shape.row_length();
    const auto fits = [row_length](DType type) { return row_length % traits(type).block_weights == 0; };
    if (fits(choice.type)) return choice;
    const auto fallback = std::find_if(rule.fallbacks.begin(), rule.fallbacks.end(), fits);
    const DType type = fallback != rule.fallbacks.end() ? *fallback : type_for_width(choice.type, row_length, tensor.source_type);
    return {type, "width fallback", choice.rule, choice.type};
  }

  // What the source says holds every value, but vectors and norms in the F32 that loaders expect.
  DType lossless_type(size_t k) {
    const LogicalTensor& tensor = tensors_[k];
    if (tensor.keep == Keep::kInteger) return DType::I32;
    const Exactness exact = exactness_ ? exactness_(k) : Exactness{tensor.source_type, ""};
    if (!exact.type) {
      refused_.push_back(k);
      if (refused_.size() == 1) refusal_ = exact.reason;
      return DType::F32;
    }
    const bool to_f32 = tensor.keep != Keep::kSource && kept_type(tensor, DType::F32) == DType::F32;
    return to_f32 ? DType::F32 : *exact.type;
  }

  [[noreturn]] void refuse_lossless() const {
    constexpr size_t kNamesShown = 6;
    std::string names;
    for (size_t i = 0; i < std::min(refused_.size(), kNamesShown); ++i) names += (i == 0 ? "'" : ", '") + tensors_[refused_[i]].name + "'";
    if (refused_.size() > kNamesShown) names += " and " + std::to_string(refused_.size() - kNamesShown) + " more";
    throw Error(ErrorKind::kUnsupported, "lossless is impossible: " + std::to_string(refused_.size()) +
                                             " tensors have no exact GGUF type (" + refusal_ + "): " + names + "; use --type BF16");
  }

  const Recipe& recipe_;
  std::span<const LogicalTensor> tensors_;
  bool have_imatrix_;
  const AskExactness& exactness_;
  std::vector<Matcher> matchers_;
  std::map<const Mix*, std::vector<TypeChoice>> mixes_;
  std::vector<size_t> refused_;  // tensors that "lossless" cannot hold
  std::string refusal_;
};

}  // namespace

bool LayerRange::contains(int64_t layer, int64_t n_layers) const noexcept {
  if (layer < 0) return false;
  if (fraction) return first * n_layers <= 1000 * layer && 1000 * layer < last * n_layers;
  const auto from_start = [n_layers](int64_t i) { return i < 0 ? n_layers + i : i; };
  return from_start(first) <= layer && layer <= from_start(last);
}

std::string to_string(const RecipeType& type) {
  switch (type.kind) {
    case RecipeType::Kind::kSource:
      return "source";
    case RecipeType::Kind::kLossless:
      return "lossless";
    case RecipeType::Kind::kMix:
      return std::string(kMixPrefix) + std::string(type.mix->name);
    case RecipeType::Kind::kType:
      break;
  }
  return std::string(name_of(type.type));
}

RecipeType recipe_type_from_string(std::string_view text) {
  if (text == "source") return {RecipeType::Kind::kSource};
  if (text == "lossless") return {RecipeType::Kind::kLossless};
  if (text.starts_with(kMixPrefix)) {
    const Mix* mix = find_mix(text.substr(kMixPrefix.size()));
    if (mix == nullptr) unknown_type(text);
    if (is_lossless(*mix)) return {RecipeType::Kind::kLossless};
    return {RecipeType::Kind::kMix, DType::F32, mix};
  }
  const std::optional<DType> type = find_dtype_by_name(text);
  if (!type || find_step(*type) == nullptr) unknown_type(text);
  return {RecipeType::Kind::kType, *type};
}

Recipe mix_recipe(const Mix& mix) {
  RecipeRule rule;
  rule.type = recipe_type_from_string(std::string(kMixPrefix) + std::string(mix.name));
  Recipe recipe;
  recipe.name = mix.name;
  recipe.rules = {rule};
  return recipe;
}

const Mix* as_mix(const Recipe& recipe) noexcept {
  const Mix* mix = find_mix(recipe.name);
  return mix != nullptr && recipe == mix_recipe(*mix) ? mix : nullptr;
}

std::string_view tensor_part(std::string_view name) noexcept {
  const auto drop_front = [&name](std::string_view prefix) {
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  };
  const auto drop_back = [&name](std::string_view suffix) {
    if (name.ends_with(suffix)) name.remove_suffix(suffix.size());
  };
  name = split_block_name(name).name;
  for (const std::string_view prefix : {"attn_", "ffn_", "indexer."}) drop_front(prefix);
  for (const std::string_view suffix : {".weight", ".bias", "_exps", "_shexp"}) drop_back(suffix);
  return name;
}

std::string_view role_name(Role role) noexcept {
  for (const auto& [known, name] : kRoleNames) {
    if (known == role) return name;
  }
  return "other";
}

std::optional<Role> find_role(std::string_view name) noexcept {
  for (const auto& [role, known] : kRoleNames) {
    if (known == name) return role;
  }
  return std::nullopt;
}

std::vector<TypeChoice> choose_types(const Recipe& recipe, const Metadata& metadata, std::span<const LogicalTensor> tensors,
                                     bool have_imatrix, const AskExactness& exactness) {
  return Chooser(recipe, metadata, tensors, have_imatrix, exactness).choose();
}

}  // namespace quern
