#include "formats/arch/families.h"
#include "formats/arch/key_reader.h"
#include "formats/arch/keys.h"
#include "formats/arch/rule_builder.h"

// Llama 1-3.3, Mistral, Mixtral, DeepSeek-LLM and DeepSeek-Coder. Q and K rows are permuted per head: transformers rotates pairs
// (i, i + D/2), loaders of this GGUF architecture rotate neighbours. llama3 position scaling travels as a tensor of divisors.
// Sources: llama.cpp conversion/llama.py, src/models/llama.cpp; transformers models/{llama,mistral,mixtral}.

namespace quern::arch {

namespace {

constexpr std::string_view kName = "llama";

bool is_mixtral(const ModelConfig& config) { return config.has("num_experts"); }

RopeConfig rope_of(const ModelConfig& config) { return read_rope(config, is_mixtral(config) ? 1e6 : 1e4); }

CommonDims dims_of(const ModelConfig& config) {
  CommonDims dims = read_dims(config);
  if (dims.head_dim % 2 != 0) refuse("head_dim " + std::to_string(dims.head_dim) + " is odd, rotary embedding needs pairs");
  return dims;
}

void check(const ModelConfig& config) {
  refuse_unless_silu(config);
  refuse_sliding_layers(config);
  refuse_partial_rotary(config);
  rope_of(config);
  dims_of(config);
}

void set_metadata(const ModelConfig& config, bool mtp, Metadata& metadata) {
  if (mtp) refuse_mtp(kName);
  KeyWriter keys(kName, metadata);
  const CommonDims dims = dims_of(config);
  set_common_keys(config, dims, rope_of(config), {dims.layers, dims.kv_heads, is_mixtral(config) ? 1e-5 : 1e-6}, keys);
  keys.count("vocab_size", dims.vocab);
  keys.count("rope.dimension_count", dims.head_dim);
}

void read_hparams(const KeyReader& keys, Hparams& h) { read_uniform_layers(keys, h, RopePairing::kAdjacent); }

void add_attention(const ModelConfig& config, const CommonDims& dims, const LayerNames& layer, RuleBuilder& b) {
  const std::string stored = layer.stored + "self_attn.";
  const bool flag = config.get_bool("attention_bias", false);  // older exports have biases without saying so
  const auto biased = [&](const char* name) { return flag || b.stored(stored + name + ".bias"); };
  const int64_t q_rows = dims.heads * dims.head_dim, kv_rows = dims.kv_heads * dims.head_dim;
  b.add_linear(stored + "q_proj", layer.gguf + "attn_q", q_rows, dims.hidden, biased("q_proj"), dims.heads);
  b.add_linear(stored + "k_proj", layer.gguf + "attn_k", kv_rows, dims.hidden, biased("k_proj"), dims.kv_heads);
  b.add_linear(stored + "v_proj", layer.gguf + "attn_v", kv_rows, dims.hidden, biased("v_proj"));
  b.add_linear(stored + "o_proj", layer.gguf + "attn_output", dims.hidden, q_rows, biased("o_proj"));
}

// transformers v5 calls the block `mlp`, everything before `block_sparse_moe`.
void add_mixtral_ffn(const CommonDims& dims, const LayerNames& layer, int64_t experts, int64_t width, RuleBuilder& b) {
  const bool v5 = b.stored(layer.stored + "mlp.gate.weight");
  const std::string moe = layer.stored + (v5 ? "mlp." : "block_sparse_moe.");
  b.add(moe + "gate.weight", layer.gguf + "ffn_gate_inp.weight", {experts, dims.hidden});
  add_experts(moe + "experts.", layer.gguf, {"w1", "w3", "w2"}, experts, dims.hidden, width, b);
}

ArchRules rules(const ModelConfig& config, bool mtp, const HasTensor& stored) {
  if (mtp) refuse_mtp(kName);
  RuleBuilder b(kName, stored);
  const CommonDims dims = dims_of(config);
  const RopeConfig rope = rope_of(config);
  const int64_t width = config.get_count("intermediate_size");
  add_ends(config, dims, b);
  if (rope.type == "llama3") {
    b.add("", "rope_freqs.weight", {dims.head_dim / 2}, Transform::kGenerated).generated = llama3_rope_factors(rope, dims.head_dim);
  }
  for (int64_t i = 0; i < dims.layers; ++i) {
    const LayerNames layer = model_layer(i);
    b.add(layer.stored + "input_layernorm.weight", layer.gguf + "attn_norm.weight", {dims.hidden});
    add_attention(config, dims, layer, b);
    b.add(layer.stored + "post_attention_layernorm.weight", layer.gguf + "ffn_norm.weight", {dims.hidden});
    if (is_mixtral(config)) {
      add_mixtral_ffn(dims, layer, read_expert_count(config), width, b);
    } else {
      const bool biased = config.get_bool("mlp_bias", false) || b.stored(layer.stored + "mlp.gate_proj.bias");
      add_dense_ffn(layer.stored + "mlp.", layer.gguf, "", dims.hidden, width, biased, b);
    }
  }
  b.ignore("*.rotary_emb.inv_freq");
  // 0 and -1 mean that there is none.
  const int64_t window = config.find_int("sliding_window", INT32_MIN, INT32_MAX).value_or(0);
  if (window > 0 && window < config.get_count("max_position_embeddings")) {
    b.note("sliding_window " + std::to_string(window) + " is not part of GGUF architecture llama: runtimes attend to the full context");
  }
  return b.finish();
}

}  // namespace

const ArchDescriptor kLlama = {
    .gguf_arch = kName,
    .hf_architectures = {"LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM", "MixtralForCausalLM"},
    .hf_model_types = {"llama", "mistral", "mixtral"},
    .check = check,
    .set_metadata = set_metadata,
    .read_hparams = read_hparams,
    .rules = rules,
};

}  // namespace quern::arch
