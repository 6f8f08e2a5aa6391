#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/arch/config.h"
#include "formats/arch/descriptor.h"
#include "formats/arch/keys.h"

namespace quern::arch {

// Name prefixes of one layer, each with its dot: "model.layers.3." and "blk.3.".
struct LayerNames {
  std::string stored;
  std::string gguf;
};
LayerNames model_layer(int64_t layer);  // transformers' spelling

// Collects the rules of one checkpoint. Role, keep-policy and layer of a rule follow from its GGUF name.
class RuleBuilder {
 public:
  RuleBuilder(std::string_view arch, const HasTensor& stored) : arch_(arch), has_(stored) {}

  bool stored(const std::string& name) const { return has_(name); }

  // The reference is valid until the next call.
  TensorRule& add(std::string stored, std::string name, Shape shape, Transform transform = Transform::kNone);
  // `.weight` and, if `biased`, `.bias` of one linear layer [rows, cols]. n_head > 0: rows are permuted per head.
  void add_linear(const std::string& stored, const std::string& name, int64_t rows, int64_t cols, bool biased, int64_t n_head = 0);
  void ignore(std::string pattern) { rules_.ignored.push_back(std::move(pattern)); }
  void note(std::string text) { rules_.notes.push_back(std::move(text)); }

  // Rules in the order of their use: tensors outside blocks but the output's, blocks by number, the output's; by bytes of the name in each.
  ArchRules finish();

 private:
  std::string_view arch_;
  const HasTensor& has_;
  ArchRules rules_;
};

// token_embd, output_norm and output in transformers' spelling. Tied embeddings have no output.weight, unless one is stored that
// turns out to differ.
void add_ends(const ModelConfig& config, const CommonDims& dims, RuleBuilder& b);

// Gate, up and down matrices of `width` rows.
void add_dense_ffn(const std::string& stored, const std::string& name, const char* suffix, int64_t hidden, int64_t width, bool biased,
                   RuleBuilder& b);

// Stacked experts in any layout that transformers writes: one tensor per expert, or `gate_up_proj` and `down_proj` stacks with gate
// rows first.
struct ExpertNames {
  const char* gate;
  const char* up;
  const char* down;
};
void add_experts(const std::string& stored, const std::string& name, const ExpertNames& names, int64_t experts, int64_t hidden,
                 int64_t width, RuleBuilder& b);

[[noreturn]] void refuse_mtp(std::string_view arch);

}  // namespace quern::arch
