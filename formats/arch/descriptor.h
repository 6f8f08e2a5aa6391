#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/metadata.h"
#include "formats/model_source.h"

namespace quern {

class ModelConfig;  // formats/arch/config.h: config.json with defaults, aliases and checked types

// How the logical tensor is made from stored ones. Row numbers are those of one slice.
enum class Transform {
  kNone,           // stored [rows, cols] as it is; with {e} in the name: one stored tensor per slice, in expert order
  kPermuteHeads,   // llama Q/K: per head, new row 2i = old i, new row 2i+1 = old i + D/2
  kSplitKeyB,      // kv_b [n_head*(nope+value), rank] -> k_b [n_head, rank, nope] (transposed per head)
  kSplitValueB,    // kv_b -> v_b [n_head, value, rank]
  kEvenRows,       // stored stack [E, 2F, ...]: rows 0, 2, 4 .. (gpt-oss gate)
  kOddRows,        // rows 1, 3, 5 .. (gpt-oss up)
  kFirstHalfRows,  // stored stack [E, 2F, H]: rows 0..F-1 (fused gate_up: gate)
  kSecondHalfRows, // rows F..2F-1 (up)
  kStoredStack,    // stored [E, rows, cols] as it is
  kConcatColumns,  // two stored tensors side by side: [A | B] (V4 eh_proj = [e_proj | h_proj])
  kGenerated       // values computed from the config (rope_freqs)
};

// One rule of an architecture: stored name pattern -> logical tensor. `{i}` is the layer number, `{e}` the expert number.
struct TensorRule {
  std::string stored;              // "model.layers.{i}.self_attn.q_proj.weight"; for kConcatColumns two patterns joined by '|'
  std::string name;                // "blk.{i}.attn_q.weight"
  Shape shape;                     // of the logical tensor, expert axis included
  Role role = Role::kOther;
  Keep keep = Keep::kMix;
  Transform transform = Transform::kNone;
  int64_t layer = -1;              // the value of {i}; rules are expanded per layer by the descriptor
  bool optional = false;           // absent in some checkpoints of the family (a bias); never guessed from
  int64_t n_head = 0;              // kPermuteHeads, kSplitKeyB, kSplitValueB
  int64_t nope_dim = 0;            // kSplit*: rows of a head that belong to the key
  int64_t value_dim = 0;           // kSplit*: rows of a head that belong to the value
  std::vector<float> generated;    // kGenerated
};

struct ArchRules {
  std::vector<TensorRule> rules;         // in output order
  std::vector<std::string> ignored;      // stored name patterns that are dropped on purpose (rotary inv_freq, MTP layers ...)
  std::vector<std::string> notes;        // what the user is told about it
};

// One architecture. Functions, not tables of strings, because shapes and layer ranges follow from the config; each lives in
// formats/arch/NAME.cc and is the only place that knows the family's names.
struct ArchDescriptor {
  std::string_view gguf_arch;                        // "deepseek4"
  std::vector<std::string_view> hf_architectures;    // "DeepseekV4ForCausalLM"
  std::vector<std::string_view> hf_model_types;      // "deepseek_v4"
  void (*check)(const ModelConfig&);                 // throws kUnsupported with the reason
  void (*set_metadata)(const ModelConfig&, bool mtp, Metadata&);  // the {arch}.* keys
  ArchRules (*rules)(const ModelConfig&, bool mtp);
};

std::span<const ArchDescriptor> all_archs();
// By config: architectures[0], then model_type; throws kUnsupported with the nearest known name, or the reason for known refusals.
const ArchDescriptor& find_arch(const ModelConfig& config);

// A GGUF file has names but no rules: role and keep-policy of a tensor by its GGUF name. The descriptors use it as well,
// so that a checkpoint and a GGUF made from it give the same answers.
struct TensorKind {
  Role role;
  Keep keep;
  int64_t layer;  // -1 outside blocks
};
TensorKind classify_tensor(std::string_view arch, std::string_view gguf_name, int rank);

}  // namespace quern
