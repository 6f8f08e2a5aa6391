#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/model/activation.h"

namespace quern {

// What a model is beyond its weights: sizes, and the kinds of its blocks layer by layer. Read from GGUF keys only
// (formats/arch/key_reader.h), so that a checkpoint and a GGUF file take one path. The forward pass, its memory plan, mixes and size
// estimates are driven by these values and never ask for the architecture's name.

// How tokens of a sequence reach one another in a layer; runtime/blocks/mixer_kinds.h has a row for each.
enum class AttentionKind {
  kGrouped,    // separate q, k, v with shared key heads (llama, qwen, gpt-oss)
  kLatent,     // MLA (deepseek2)
  kCompressed  // one key = value head, window plus compressed entries (deepseek4)
};

enum class RopePairing {
  kAdjacent,  // (x0, x1), (x2, x3) ...: ggml's NORM
  kHalves     // (x0, x[d/2]), (x1, x[d/2 + 1]) ...: ggml's NEOX
};

struct RopeParams {
  RopePairing pairing = RopePairing::kAdjacent;
  int64_t n_dims = 0;  // how many dimensions of a head rotate
  double freq_base = 10000.0;
  double factor = 1.0;  // linear: divides every frequency; yarn: the interpolated ones
  bool yarn = false;
  double original_context = 0.0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool truncate = true;    // round yarn's correction bounds outwards
  double magnitude = 1.0;  // multiplies cos and sin
};

// How router logits become probabilities; the values are those of the key expert_gating_func.
enum class Gating { kSoftmax = 1, kSigmoid = 2, kSoftmaxOfSelected = 3, kSqrtSoftplus = 4 };

struct RoutingParams {
  int64_t n_experts = 0;
  int64_t n_used = 0;
  Gating gating = Gating::kSoftmax;
  int64_t n_groups = 1;        // experts form groups of n_experts / n_groups
  int64_t n_groups_used = 1;   // only the best of them take part
  bool group_top_two = false;  // a group scores the sum of its two best choices; false: its best one
  bool normalize = false;      // weights of the selected experts sum to 1 before `scale`
  double scale = 1.0;
};

struct LayerParams {
  AttentionKind attention = AttentionKind::kGrouped;
  int64_t n_kv_heads = 0;  // heads of keys and values that are stored; each serves n_heads / n_kv_heads heads of queries
  int64_t window = 0;      // keys a query sees, itself included; 0: all
  size_t rope = 0;         // index into Hparams::ropes
  double attention_scale = 0.0;
  int64_t compress_ratio = 0;  // tokens per compressed entry; 4 has an indexer, 0 no compression
  bool moe = false;
  bool hash_routing = false;  // experts looked up by token id instead of chosen by score
  Activation activation = Activation::kSilu;
  double clamp_experts = 0.0;  // limits of `activation`; 0: none
  double clamp_shared = 0.0;
};

struct Hparams {
  std::string arch;
  int64_t n_layers = 0;      // main layers; MTP blocks follow them in `layers`
  int64_t n_mtp_layers = 0;  // what the metadata says; the evaluator checks that the tensors exist
  int64_t hidden = 0;
  int64_t context_length = 0;
  double norm_eps = 0.0;

  int64_t n_heads = 0;
  int64_t key_dim = 0;     // per head: q and k (latent: nope + rope dimensions)
  int64_t value_dim = 0;   // per head
  int64_t q_rank = 0;      // low-rank query projection; 0: a plain one
  int64_t kv_rank = 0;     // latent attention: width of the compressed keys and values
  bool split_kv_b = true;  // latent attention: attn_k_b and attn_v_b are stored; false: the older attn_kv_b

  int64_t n_output_groups = 0;  // compressed attention: grouped output projection
  int64_t output_rank = 0;
  int64_t n_indexer_heads = 0;
  int64_t indexer_dim = 0;
  int64_t indexer_top_k = 0;

  int64_t n_streams = 1;  // hyper-connections: residual streams
  int64_t sinkhorn_iterations = 0;
  double hyper_eps = 0.0;

  int64_t dense_width = 0;
  int64_t expert_width = 0;
  bool own_expert_width = false;  // the keys have one for experts; false: they are as wide as a dense network (Mixtral)
  int64_t shared_width = 0;       // of the always-active expert, where there is one
  int64_t n_shared_experts = 0;   // that it is made of, as far as the keys say
  RoutingParams routing;

  std::vector<RopeParams> ropes;
  std::vector<LayerParams> layers;  // n_layers + n_mtp_layers

  int64_t state_width() const noexcept { return n_streams * hidden; }
};

}  // namespace quern
