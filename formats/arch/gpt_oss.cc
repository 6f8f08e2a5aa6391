#include <algorithm>

#include "formats/arch/families.h"
#include "formats/arch/key_reader.h"
#include "formats/arch/keys.h"
#include "formats/arch/rule_builder.h"
#include "formats/base/error.h"

// gpt-oss: attention with sinks, every second layer within a window; experts with biases, stored as MXFP4 stacks whose gate and up
// rows alternate. The official checkpoints only: BF16 re-exports hold the stacks input-major, which no other family does.
// Sources: llama.cpp conversion/gpt_oss.py, src/models/openai-moe.cpp; openai/gpt-oss gpt_oss/torch; transformers models/gpt_oss.

namespace quern::arch {

namespace {

constexpr std::string_view kName = "gpt-oss";
constexpr int64_t kHeadDim = 64;  // transformers' defaults
constexpr int64_t kFp4Block = 32;

RopeConfig rope_of(const ModelConfig& config) {
  RopeConfig rope = read_rope(config, 150000);
  if (rope.type == "llama3") refuse("rope_type 'llama3' cannot be expressed by GGUF architecture gpt-oss");
  return rope;
}

// Loaders take layers 0, 2, 4 ... as the ones with a window.
void check_layer_types(const ModelConfig& config) {
  const auto types = config.find_string_array("layer_types");
  if (!types) return;
  for (size_t i = 0; i < types->size(); ++i) {
    const char* expected = i % 2 == 0 ? "sliding_attention" : "full_attention";
    if ((*types)[i] != expected) {
      refuse("layer_types[" + std::to_string(i) + "] is '" + printable((*types)[i]) + "', GGUF architecture gpt-oss takes '" + expected +
             "'");
    }
  }
}

void refuse_other_constant(const ModelConfig& config, const char* key, double expected) {
  const double value = config.get_float(key, expected);
  if (value != expected) {
    refuse(std::string(key) + " is " + std::to_string(value) + ", runtimes of GGUF architecture gpt-oss have " + std::to_string(expected) +
           " built in");
  }
}

void check_width(const char* key, int64_t width) {
  if (width % kFp4Block != 0) {
    throw Error(ErrorKind::kFormat,
                "config.json: '" + std::string(key) + "' is " + std::to_string(width) + ", expected a multiple of 32 (MXFP4 blocks)");
  }
}

void check(const ModelConfig& config) {
  check_layer_types(config);
  refuse_partial_rotary(config);
  refuse_other_constant(config, "swiglu_limit", 7.0);
  refuse_other_constant(config, "swiglu_alpha", 1.702);
  if (!config.get_bool("attention_bias", true)) refuse("attention_bias is false; GGUF architecture gpt-oss requires the biases");
  check_width("hidden_size", read_dims(config, kHeadDim).hidden);
  check_width("intermediate_size", config.get_count("intermediate_size"));
  rope_of(config);
}

void set_metadata(const ModelConfig& config, bool mtp, Metadata& metadata) {
  if (mtp) refuse_mtp(kName);
  KeyWriter keys(kName, metadata);
  const CommonDims dims = read_dims(config, kHeadDim);
  set_common_keys(config, dims, rope_of(config), {dims.layers, dims.kv_heads, 1e-5}, keys);
  keys.count("attention.key_length", dims.head_dim);
  keys.count("attention.value_length", dims.head_dim);
  keys.count("attention.sliding_window", config.get_count("sliding_window", 128));
  keys.count("expert_feed_forward_length", config.get_count("intermediate_size"));
}

void read_hparams(const KeyReader& keys, Hparams& h) {
  read_uniform_layers(keys, h, RopePairing::kHalves);
  h.ropes[0].truncate = keys.flag_or("rope.scaling.yarn_truncate", false);
  h.routing.gating = Gating::kSoftmaxOfSelected;
  const int64_t window = keys.count("attention.sliding_window");
  const int64_t period = std::max<int64_t>(1, keys.count_or("attention.sliding_window_pattern", 2));
  const double limit = keys.number_or("swiglu_limit", 7.0);
  for (size_t i = 0; i < h.layers.size(); ++i) {
    LayerParams& layer = h.layers[i];
    layer.window = (static_cast<int64_t>(i) + 1) % period != 0 ? window : 0;
    layer.activation = Activation::kGptOss;
    layer.clamp_experts = limit;
  }
}

void add_attention(const CommonDims& dims, const LayerNames& layer, RuleBuilder& b) {
  const std::string stored = layer.stored + "self_attn.";
  const int64_t q_rows = dims.heads * dims.head_dim, kv_rows = dims.kv_heads * dims.head_dim;
  b.add_linear(stored + "q_proj", layer.gguf + "attn_q", q_rows, dims.hidden, true);
  b.add_linear(stored + "k_proj", layer.gguf + "attn_k", kv_rows, dims.hidden, true);
  b.add_linear(stored + "v_proj", layer.gguf + "attn_v", kv_rows, dims.hidden, true);
  b.add_linear(stored + "o_proj", layer.gguf + "attn_output", dims.hidden, q_rows, true);
  b.add(stored + "sinks", layer.gguf + "attn_sinks.weight", {dims.heads});
}

void add_ffn(const CommonDims& dims, const LayerNames& layer, int64_t experts, int64_t width, RuleBuilder& b) {
  const std::string stored = layer.stored + "mlp.experts.";
  const std::string gate_up = stored + "gate_up_proj", down = stored + "down_proj", name = layer.gguf + "ffn_";
  b.add_linear(layer.stored + "mlp.router", name + "gate_inp", experts, dims.hidden, true);
  b.add(gate_up + "_blocks", name + "gate_exps.weight", {experts, width, dims.hidden}, Transform::kEvenRows);
  b.add(gate_up + "_blocks", name + "up_exps.weight", {experts, width, dims.hidden}, Transform::kOddRows);
  b.add(down + "_blocks", name + "down_exps.weight", {experts, dims.hidden, width}, Transform::kStoredStack);
  b.add(gate_up + "_bias", name + "gate_exps.bias", {experts, width}, Transform::kEvenRows);
  b.add(gate_up + "_bias", name + "up_exps.bias", {experts, width}, Transform::kOddRows);
  b.add(down + "_bias", name + "down_exps.bias", {experts, dims.hidden}, Transform::kStoredStack);
}

ArchRules rules(const ModelConfig& config, bool mtp, const HasTensor& stored) {
  if (mtp) refuse_mtp(kName);
  RuleBuilder b(kName, stored);
  const CommonDims dims = read_dims(config, kHeadDim);
  add_ends(config, dims, b);
  for (int64_t i = 0; i < dims.layers; ++i) {
    const LayerNames layer = model_layer(i);
    if (b.stored(layer.stored + "mlp.experts.gate_up_proj")) {
      throw Error(ErrorKind::kUnsupported,
                  "expert weights without _blocks and _scales: a re-export of gpt-oss; use the official MXFP4 checkpoint")
          .tensor(layer.stored + "mlp.experts.gate_up_proj");
    }
    b.add(layer.stored + "input_layernorm.weight", layer.gguf + "attn_norm.weight", {dims.hidden});
    b.add(layer.stored + "post_attention_layernorm.weight", layer.gguf + "post_attention_norm.weight", {dims.hidden});
    add_attention(dims, layer, b);
    add_ffn(dims, layer, read_expert_count(config), config.get_count("intermediate_size"), b);
  }
  return b.finish();
}

}  // namespace

const ArchDescriptor kGptOss = {
    .gguf_arch = kName,
    .hf_architectures = {"GptOssForCausalLM"},
    .hf_model_types = {"gpt_oss"},
    .check = check,
    .set_metadata = set_metadata,
    .read_hparams = read_hparams,
    .rules = rules,
};

}  // namespace quern::arch
