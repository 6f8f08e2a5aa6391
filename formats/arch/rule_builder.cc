#include "formats/arch/rule_builder.h"

#include <algorithm>
#include <limits>
#include <string_view>
#include <tuple>
#include <utility>

#include "formats/arch/stems.h"
#include "formats/base/checked.h"
#include "formats/base/error.h"

// Families list their tensors through these few calls, so that their files name only what is their own. A rule says where a tensor is
// stored and what it is called in GGUF; role, keep-policy and layer are read off that name in one place (stems.cc), which makes a GGUF
// file and a checkpoint agree on them. Where transformers knows several layouts for the same weights, the names that are stored decide, not
// config.json.

namespace quern::arch {

LayerNames model_layer(int64_t layer) {
  const std::string number = std::to_string(layer) + ".";
  return {"model.layers." + number, block_name(layer, "")};
}

TensorRule& RuleBuilder::add(std::string stored, std::string name, Shape shape, Transform transform) {
  const TensorKind kind = classify_tensor(arch_, name, shape.rank());
  TensorRule rule;
  rule.stored = std::move(stored);
  rule.name = std::move(name);
  rule.shape = shape;
  rule.role = kind.role;
  rule.keep = kind.keep;
  rule.layer = kind.layer;
  rule.transform = transform;
  return rules_.rules.emplace_back(std::move(rule));
}

void RuleBuilder::add_linear(const std::string& stored, const std::string& name, int64_t rows, int64_t cols, bool biased, int64_t n_head) {
  const Transform transform = n_head > 0 ? Transform::kPermuteHeads : Transform::kNone;
  add(stored + ".weight", name + ".weight", {rows, cols}, transform).n_head = n_head;
  if (biased) add(stored + ".bias", name + ".bias", {rows}, transform).n_head = n_head;
}

// The order is that in which a token goes through the model: embedding, layers by number, output. Whoever streams a file meets weights in
// the order of their use, and statistics that are collected while a model is converted are there in time.
ArchRules RuleBuilder::finish() {
  std::ranges::sort(rules_.rules, {}, [](const TensorRule& rule) {
    const bool last = rule.layer < 0 && rule.name.starts_with("output");
    return std::tuple(last ? std::numeric_limits<int64_t>::max() : rule.layer, std::string_view(rule.name));
  });
  return std::move(rules_);
}

void add_ends(const ModelConfig& config, const CommonDims& dims, RuleBuilder& b) {
  const std::string embedding = "model.embed_tokens.weight";
  const std::string head = "lm_head.weight";
  b.add(embedding, "token_embd.weight", {dims.vocab, dims.hidden});
  b.add("model.norm.weight", "output_norm.weight", {dims.hidden});
  const bool tied = config.get_bool("tie_word_embeddings", false);
  if (tied && !b.stored(head)) return;
  TensorRule& output = b.add(head, "output.weight", {dims.vocab, dims.hidden});
  if (tied) output.drop_if_equal_to = embedding;
}

void add_dense_ffn(const std::string& stored, const std::string& name, const char* suffix, int64_t hidden, int64_t width, bool biased,
                   RuleBuilder& b) {
  b.add_linear(stored + "gate_proj", name + "ffn_gate" + suffix, width, hidden, biased);
  b.add_linear(stored + "up_proj", name + "ffn_up" + suffix, width, hidden, biased);
  b.add_linear(stored + "down_proj", name + "ffn_down" + suffix, hidden, width, biased);
}

void add_experts(const std::string& stored, const std::string& name, const ExpertNames& names, int64_t experts, int64_t hidden,
                 int64_t width, RuleBuilder& b) {
  const Shape in_shape = {experts, width, hidden};
  const Shape out_shape = {experts, hidden, width};
  const std::string gate = name + "ffn_gate_exps.weight", up = name + "ffn_up_exps.weight", down = name + "ffn_down_exps.weight";
  for (const std::string suffix : {"", ".weight"}) {
    const std::string fused = stored + "gate_up_proj" + suffix;
    if (!b.stored(fused)) continue;
    b.add(fused, gate, in_shape, Transform::kFirstHalfRows);
    b.add(fused, up, in_shape, Transform::kSecondHalfRows);
    b.add(stored + "down_proj" + suffix, down, out_shape, Transform::kStoredStack);
    return;
  }
  const std::string each = stored + "{e}.";
  b.add(each + names.gate + ".weight", gate, in_shape);
  b.add(each + names.up + ".weight", up, in_shape);
  b.add(each + names.down + ".weight", down, out_shape);
}

void refuse_mtp(std::string_view arch) {
  throw Error(ErrorKind::kUnsupported, "--mtp: models of architecture " + std::string(arch) + " have no MTP block");
}

}  // namespace quern::arch
