#include "recipes/mix.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "formats/arch/key_reader.h"
#include "formats/base/error.h"
#include "formats/base/nearest.h"
#include "recipes/type_ladder.h"

namespace quern {
namespace {

constexpr Mix kMixes[] = {
    {"F32", 0, DType::F32},      {"F16", 1, DType::F16},       {"BF16", 32, DType::BF16},       {"Q8_0", 7, DType::Q8_0},
    {"Q6_K", 18, DType::Q6_K},   {"Q5_K_M", 17, DType::Q5_K},  {"Q5_K_S", 16, DType::Q5_K},     {"Q4_K_M", 15, DType::Q4_K},
    {"Q4_K_S", 14, DType::Q4_K}, {"Q3_K_L", 13, DType::Q3_K},  {"Q3_K_M", 12, DType::Q3_K},     {"Q3_K_S", 11, DType::Q3_K},
    {"Q2_K", 10, DType::Q2_K},   {"Q2_K_S", 21, DType::Q2_K},  {"Q5_1", 9, DType::Q5_1},        {"Q5_0", 8, DType::Q5_0},
    {"Q4_1", 3, DType::Q4_1},    {"Q4_0", 2, DType::Q4_0},     {"IQ4_NL", 25, DType::IQ4_NL},   {"IQ4_XS", 30, DType::IQ4_XS},
    {"IQ3_M", 27, DType::IQ3_S}, {"IQ3_S", 26, DType::IQ3_S},  {"IQ3_XS", 22, DType::IQ3_S},    {"IQ3_XXS", 23, DType::IQ3_XXS},
    {"IQ2_M", 29, DType::IQ2_S}, {"IQ2_S", 28, DType::IQ2_XS}, {"IQ2_XS", 20, DType::IQ2_XS},   {"IQ2_XXS", 19, DType::IQ2_XXS},
    {"IQ1_M", 31, DType::IQ1_M}, {"IQ1_S", 24, DType::IQ1_S},  {"TQ1_0", 36, DType::TQ1_0},     {"TQ2_0", 37, DType::TQ2_0},
    {"Q2_0", 41, DType::Q2_0},   {"Q1_0", 40, DType::Q1_0},    {"MXFP4_MOE", 38, DType::MXFP4}, {"lossless", 32, DType::BF16},
};

constexpr std::string_view kLowMixes = "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M";

// What a tensor's name makes it in the rules. kValue also stands for fused QKV and MLA's unsplit kv_b.
enum class Part { kOutput, kEmbedding, kValue, kKey, kQuery, kAttentionOutput, kDown, kGate, kUp, kOther };
constexpr size_t kPartCount = 10;

// Conditions of a rule; all that are set must hold. i is the layer index of the tensor, n the layer count.
enum Condition : uint32_t {
  kAlways = 0,
  kGqa4 = 1u << 0,            // at least 4 query heads per key head
  kGqa4OrExperts4 = 1u << 1,  // or at least 4 experts
  kEightExperts = 1u << 2,    // Mixtral
  kImportance = 1u << 3,      // an importance matrix is at hand
  kNoImportance = 1u << 4,
  kFirst2 = 1u << 5,          // i < 2
  kFirst4 = 1u << 6,          // i < 4
  kFirstEighth = 1u << 7,     // i < n/8
  kFirstSixteenth = 1u << 8,  // i < n/16
  kMiddle = 1u << 9,          // n/8 <= i < 7n/8
  kMoreBits = 1u << 10,       // the first eighth, the last eighth and every third between; for values n counts value tensors
};

struct Rule {
  std::string_view mixes;  // names separated by blanks; empty: every mix
  Part part;
  uint32_t conditions;
  DType type;
};

// The first rule that matches decides; without one a tensor gets the base type. Gate and up share their rules.
constexpr Rule kLowRules[] = {
    {"", Part::kValue, kGqa4OrExperts4, DType::Q4_K},
    {"IQ2_S IQ2_M", Part::kValue, kAlways, DType::IQ3_S},
    {"", Part::kValue, kAlways, DType::Q2_K},
    {"", Part::kKey, kEightExperts, DType::Q4_K},
    {"IQ2_S IQ2_M", Part::kDown, kFirstEighth, DType::IQ3_S},
    {"", Part::kDown, kFirstEighth, DType::Q2_K},
    {"", Part::kAttentionOutput, kEightExperts, DType::Q5_K},
    {"IQ1_S IQ1_M", Part::kAttentionOutput, kAlways, DType::IQ2_XXS},
    {"IQ2_S IQ2_M", Part::kAttentionOutput, kAlways, DType::IQ3_S},
};

constexpr Rule kRules[] = {
    {"", Part::kValue, kEightExperts, DType::Q8_0},
    {"Q2_K Q2_K_S IQ3_XXS IQ3_XS IQ3_S", Part::kValue, kGqa4, DType::Q4_K},
    {"IQ4_NL IQ4_XS", Part::kValue, kGqa4, DType::Q5_K},
    {"Q2_K", Part::kValue, kAlways, DType::Q3_K},
    {"IQ3_XXS", Part::kValue, kNoImportance, DType::IQ3_S},
    {"IQ3_M", Part::kValue, kAlways, DType::Q4_K},
    {"Q3_K_M", Part::kValue, kFirst2, DType::Q5_K},
    {"Q3_K_M", Part::kValue, kAlways, DType::Q4_K},
    {"Q3_K_L", Part::kValue, kAlways, DType::Q5_K},
    {"Q4_K_M Q5_K_M", Part::kValue, kMoreBits, DType::Q6_K},
    {"Q4_K_S", Part::kValue, kFirst4, DType::Q5_K},

    {"", Part::kKey, kEightExperts, DType::Q8_0},
    {"IQ3_XS", Part::kKey, kAlways, DType::IQ3_XXS},
    {"IQ3_XXS", Part::kKey, kAlways, DType::IQ2_S},
    {"IQ3_XS", Part::kQuery, kAlways, DType::IQ3_XXS},
    {"IQ3_XXS", Part::kQuery, kAlways, DType::IQ2_S},

    {"Q2_K", Part::kDown, kAlways, DType::Q3_K},
    {"Q2_K_S", Part::kDown, kFirstEighth, DType::Q4_K},
    {"IQ3_XXS", Part::kDown, kNoImportance | kFirstEighth, DType::Q4_K},
    {"IQ3_XXS", Part::kDown, kNoImportance, DType::Q3_K},
    {"IQ3_M", Part::kDown, kFirstEighth, DType::Q4_K},
    {"IQ3_M", Part::kDown, kEightExperts | kMoreBits, DType::Q4_K},
    {"Q3_K_M", Part::kDown, kFirstSixteenth, DType::Q5_K},
    {"Q3_K_M", Part::kDown, kAlways, DType::Q4_K},
    {"Q3_K_L", Part::kDown, kAlways, DType::Q5_K},
    {"Q4_K_M Q5_K_M", Part::kDown, kMoreBits, DType::Q6_K},
    {"Q4_K_S", Part::kDown, kFirstEighth, DType::Q5_K},
    {"IQ4_NL IQ4_XS", Part::kDown, kNoImportance | kFirstEighth, DType::Q5_K},
    {"Q4_0", Part::kDown, kImportance | kFirstEighth, DType::Q4_1},
    {"Q5_0", Part::kDown, kImportance | kFirstEighth, DType::Q5_1},

    {"Q2_K IQ3_XS IQ3_XXS Q3_K_S Q3_K_M IQ4_NL Q4_K_S Q4_K_M IQ3_S IQ3_M IQ4_XS", Part::kAttentionOutput, kEightExperts, DType::Q5_K},
    {"Q3_K_L", Part::kAttentionOutput, kEightExperts, DType::Q3_K},
    {"Q2_K", Part::kAttentionOutput, kAlways, DType::Q3_K},
    {"IQ3_XXS", Part::kAttentionOutput, kAlways, DType::IQ3_S},
    {"Q3_K_M IQ3_M", Part::kAttentionOutput, kAlways, DType::Q4_K},
    {"Q3_K_L", Part::kAttentionOutput, kAlways, DType::Q5_K},

    {"IQ3_XS", Part::kGate, kMiddle, DType::IQ3_XXS},

    {"IQ1_S IQ1_M IQ2_XXS IQ2_XS", Part::kEmbedding, kAlways, DType::Q2_K},
    {"IQ2_S IQ2_M IQ3_XXS", Part::kEmbedding, kAlways, DType::IQ3_S},
    {"TQ1_0 TQ2_0 Q2_0", Part::kEmbedding, kAlways, DType::Q4_K},
};

// Models that llama.cpp calls 70B: their value tensors are small beside the rest and get one step more.
constexpr struct {
  std::string_view arch;
  int64_t n_layers;
  bool grouped_query;
} k70B[] = {{"llama", 80, true}, {"qwen2", 80, false}, {"deci", 80, false}, {"olmo", 80, false}, {"jais2", 68, false}};

bool lists(std::string_view names, std::string_view name) {
  for (size_t at = names.find(name); at != std::string_view::npos; at = names.find(name, at + 1)) {
    const size_t end = at + name.size();
    if ((at == 0 || names[at - 1] == ' ') && (end == names.size() || names[end] == ' ')) return true;
  }
  return false;
}

Part part_of(std::string_view name) {
  static constexpr struct {
    std::string_view piece;
    Part part;
  } kPieces[] = {{"attn_qkv.weight", Part::kValue},
                 {"attn_kv_b.weight", Part::kValue},
                 {"attn_v.weight", Part::kValue},
                 {"attn_k.weight", Part::kKey},
                 {"attn_q.weight", Part::kQuery},
                 {"attn_output.weight", Part::kAttentionOutput},
                 {"ffn_up", Part::kUp},
                 {"ffn_gate", Part::kGate},
                 {"ffn_down", Part::kDown}};
  if (name == "output.weight") return Part::kOutput;
  if (name == "token_embd.weight" || name == "per_layer_token_embd.weight") return Part::kEmbedding;
  for (const auto& [piece, part] : kPieces) {
    if (name.find(piece) != std::string_view::npos) return part;
  }
  return Part::kOther;
}

bool fits(DType type, int64_t row_length) { return row_length % traits(type).block_weights == 0; }

// The figures of a model that the rules ask for.
struct ModelFacts {
  int64_t n_layers = 0;
  int64_t n_experts = 0;
  int64_t queries_per_key = 1;
  int64_t n_value_tensors = 0;
  bool tied = false;  // no output.weight: the embedding is the output
  bool is_70b = false;
  bool have_imatrix = false;
};

bool decided_by_mix(const LogicalTensor& tensor) { return tensor.keep == Keep::kMix && tensor.shape.rank() >= 2; }

ModelFacts model_facts(const Metadata& metadata, std::span<const LogicalTensor> tensors, bool have_imatrix) {
  ModelFacts facts;
  const Hparams h = outline_hparams(metadata);
  facts.n_layers = static_cast<int64_t>(h.layers.size());
  facts.n_experts = h.routing.n_experts;
  const int64_t n_kv_heads = h.layers.empty() ? 0 : h.layers.front().n_kv_heads;  // layer 0 decides
  facts.queries_per_key = n_kv_heads > 0 ? h.n_heads / n_kv_heads : 1;
  facts.tied = true;
  for (const LogicalTensor& tensor : tensors) {
    if (tensor.name == "output.weight") facts.tied = false;
    if (part_of(tensor.name) == Part::kValue && decided_by_mix(tensor)) ++facts.n_value_tensors;
  }
  facts.is_70b = std::any_of(std::begin(k70B), std::end(k70B), [&](const auto& row) {
    return row.arch == h.arch && row.n_layers == facts.n_layers && (!row.grouped_query || h.n_heads != n_kv_heads);
  });
  facts.have_imatrix = have_imatrix;
  return facts;
}

bool more_bits(int64_t i, int64_t n) { return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2; }

bool holds(uint32_t conditions, const ModelFacts& facts, Part part, int64_t i) {
  const int64_t n = facts.n_layers;
  const auto needs = [conditions](Condition c) { return (conditions & c) != 0; };
  if (needs(kGqa4) && facts.queries_per_key < 4) return false;
  if (needs(kGqa4OrExperts4) && facts.queries_per_key < 4 && facts.n_experts < 4) return false;
  if (needs(kEightExperts) && facts.n_experts != 8) return false;
  if (needs(kImportance) && !facts.have_imatrix) return false;
  if (needs(kNoImportance) && facts.have_imatrix) return false;
  if (needs(kFirst2) && i >= 2) return false;
  if (needs(kFirst4) && i >= 4) return false;
  if (needs(kFirstEighth) && i >= n / 8) return false;
  if (needs(kFirstSixteenth) && i >= n / 16) return false;
  if (needs(kMiddle) && (i < n / 8 || i >= 7 * n / 8)) return false;
  return !needs(kMoreBits) || more_bits(i, part == Part::kValue ? facts.n_value_tensors : n);
}

DType apply_rules(std::span<const Rule> rules, const Mix& mix, const ModelFacts& facts, Part part, int64_t i) {
  const Part ruled = part == Part::kUp ? Part::kGate : part;
  for (const Rule& rule : rules) {
    if (rule.part == ruled && (rule.mixes.empty() || lists(rule.mixes, mix.name)) && holds(rule.conditions, facts, part, i))
      return rule.type;
  }
  return mix.base;
}

DType output_type(const Mix& mix, int64_t row_length) {
  if (mix.name == "MXFP4_MOE" || mix.base == DType::Q8_0 || !fits(mix.base, row_length)) return DType::Q8_0;
  return lists(kLowMixes, mix.name) || mix.name == "IQ3_XXS" ? DType::Q5_K : DType::Q6_K;
}

// i: the layer number, or how many tensors of this part come before it; see layer_indices.
DType mix_type(const Mix& mix, const ModelFacts& facts, const LogicalTensor& tensor, int64_t i) {
  const Part part = part_of(tensor.name);
  if (traits(mix.base).block_weights == 1) return mix.base;
  if (part == Part::kOutput || (facts.tied && part == Part::kEmbedding)) return output_type(mix, tensor.shape.row_length());
  if (mix.name == "MXFP4_MOE") return tensor.shape.rank() > 2 && tensor.shape[tensor.shape.rank() - 3] > 1 ? DType::MXFP4 : DType::Q8_0;
  if (lists(kLowMixes, mix.name) && part != Part::kEmbedding) return apply_rules(kLowRules, mix, facts, part, i);
  const DType type = apply_rules(kRules, mix, facts, part, i);
  const bool raised = facts.is_70b && part == Part::kValue && (type == DType::Q3_K || type == DType::Q4_K);
  return raised ? DType::Q5_K : type;
}

// The layer index that the rules compare: the rank of the tensor among those of its part, in the order by layer and then name;
// for the FFN of mixture-of-experts models outside the lowest mixes the layer number itself.
std::vector<int64_t> layer_indices(const Mix& mix, const ModelFacts& facts, std::span<const LogicalTensor> tensors) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return tensors[a].layer != tensors[b].layer ? tensors[a].layer < tensors[b].layer : tensors[a].name < tensors[b].name;
  });
  const bool by_number = facts.n_experts > 1 && !lists(kLowMixes, mix.name);
  std::array<int64_t, kPartCount> seen{};
  std::vector<int64_t> indices(tensors.size(), 0);
  for (const size_t k : order) {
    if (!decided_by_mix(tensors[k])) continue;
    const Part part = part_of(tensors[k].name);
    const bool ffn = part == Part::kDown || part == Part::kGate || part == Part::kUp;
    const int64_t rank = seen[static_cast<size_t>(part)]++;
    indices[k] = ffn && by_number ? tensors[k].layer : rank;
  }
  return indices;
}

}  // namespace

std::span<const Mix> all_mixes() { return kMixes; }

const Mix* find_mix(std::string_view name) noexcept {
  for (const auto& [alias, meant] : {std::pair{"Q3_K", "Q3_K_M"}, std::pair{"Q4_K", "Q4_K_M"}, std::pair{"Q5_K", "Q5_K_M"}}) {
    if (same_name(name, alias)) name = meant;
  }
  const auto* found = std::find_if(std::begin(kMixes), std::end(kMixes), [&](const Mix& mix) { return same_name(mix.name, name); });
  return found == std::end(kMixes) ? nullptr : found;
}

bool is_lossless(const Mix& mix) noexcept { return mix.name == "lossless"; }

std::optional<DType> kept_type(const LogicalTensor& tensor, DType base) noexcept {
  switch (tensor.keep) {
    case Keep::kInteger:
      return DType::I32;
    case Keep::kF32:
      return DType::F32;
    case Keep::kSource:
      return base == DType::F32 ? DType::F32 : tensor.source_type;
    case Keep::kMix:
      break;
  }
  if (tensor.shape.rank() < 2) return DType::F32;
  return std::nullopt;
}

DType type_for_width(DType type, int64_t row_length, DType source_type) noexcept {
  if (fits(type, row_length)) return type;
  const TypeStep* step = find_step(type);
  const DType narrower = step != nullptr ? step->narrower : DType::F16;
  if (narrower != DType::F16 && fits(narrower, row_length)) return narrower;
  return source_type == DType::BF16 ? DType::BF16 : DType::F16;
}

std::vector<TypeChoice> choose_types(const Mix& mix, const Metadata& metadata, std::span<const LogicalTensor> tensors, bool have_imatrix) {
  QUERN_CHECK(!is_lossless(mix));
  const ModelFacts facts = model_facts(metadata, tensors, have_imatrix);
  const std::vector<int64_t> indices = layer_indices(mix, facts, tensors);
  std::vector<TypeChoice> choices;
  choices.reserve(tensors.size());
  for (size_t k = 0; k < tensors.size(); ++k) {
    const LogicalTensor& tensor = tensors[k];
    if (const std::optional<DType> kept = kept_type(tensor, mix.base)) {
      choices.push_back({*kept, "keep-list"});
      continue;
    }
    const DType wanted = mix_type(mix, facts, tensor, indices[k]);
    const DType type = type_for_width(wanted, tensor.shape.row_length(), tensor.source_type);
    choices.push_back({type, type == wanted ? "mix" : "width fallback", -1, wanted});
  }
  return choices;
}

}  // namespace quern
