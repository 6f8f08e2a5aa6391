#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf/metadata.h"
#include "formats/model/model_source.h"

namespace quern {

class ModelConfig;  // formats/arch/config.h: config.json with defaults, aliases and checked types
struct Hparams;     // formats/model/hparams.h
namespace arch {
class KeyReader;
}

// Whether the checkpoint stores a tensor of this name: some families exist in two layouts (fused and separate experts, with and
// without biases), and the rules name the one that is there.
using HasTensor = std::function<bool(std::string_view name)>;

// How the logical tensor is made from stored ones. Row numbers are those of one slice. On vectors and on stacks of vectors
// ([E, 2F] biases) the elements of a slice take the place of rows.
enum class Transform {
  kNone,            // stored [rows, cols] as it is; with {e} in the name: one stored tensor per slice, in expert order
  kPermuteHeads,    // llama Q/K: per head, new row 2i = old i, new row 2i+1 = old i + D/2
  kSplitKeyB,       // kv_b [n_head*(nope+value), rank] -> k_b [n_head, rank, nope] (transposed per head)
  kSplitValueB,     // kv_b -> v_b [n_head, value, rank]
  kEvenRows,        // stored stack [E, 2F, ...]: rows 0, 2, 4 .. (gpt-oss gate)
  kOddRows,         // rows 1, 3, 5 .. (gpt-oss up)
  kFirstHalfRows,   // stored stack [E, 2F, H]: rows 0..F-1 (fused gate_up: gate)
  kSecondHalfRows,  // rows F..2F-1 (up)
  kStoredStack,     // stored [E, rows, cols] as it is
  kConcatColumns,   // two stored tensors side by side: [A | B] (V4 eh_proj = [e_proj | h_proj])
  kGenerated        // values computed from the config (rope_freqs)
};

// One rule of an architecture: stored names -> one logical tensor, expanded per layer. `{e}` in `stored` stands for the expert number
// 0 .. shape[0]-1. Scales belong to the stored tensor and are not named here; MXFP4 pairs are named by their `_blocks` half.
struct TensorRule {
  std::string stored;  // "model.layers.3.mlp.experts.{e}.up_proj.weight"; for kConcatColumns two names joined by '|'
  std::string name;    // "blk.3.ffn_up_exps.weight"
  Shape shape;         // of the logical tensor, expert axis included
  Role role = Role::kOther;
  Keep keep = Keep::kMix;
  Transform transform = Transform::kNone;
  int64_t layer = -1;            // GGUF block number, -1 outside blocks
  std::string drop_if_equal_to;  // stored name of a tensor that this one may duplicate (tied output matrix, MTP's own embedding):
                                 // left out when the bytes are equal, kept with a warning when they differ
  int64_t n_head = 0;            // kPermuteHeads, kSplitKeyB, kSplitValueB
  int64_t nope_dim = 0;          // kSplit*: rows of a head that belong to the key
  int64_t value_dim = 0;         // kSplit*: rows of a head that belong to the value
  std::vector<float> generated;  // kGenerated
};

struct ArchRules {
  std::vector<TensorRule> rules;     // in output order
  std::vector<std::string> ignored;  // stored names that are dropped on purpose, '*' matches any text (rotary inv_freq, MTP layers ...)
  std::vector<std::string> notes;    // what the user is told about it
};

// One architecture. Functions, not tables of strings, because shapes and layer ranges follow from the config; each lives in
// formats/arch/NAME.cc and is the only place that knows the family's names and keys.
struct ArchDescriptor {
  std::string_view gguf_arch;                                                 // "deepseek4"
  std::vector<std::string_view> hf_architectures;                             // "DeepseekV4ForCausalLM"
  std::vector<std::string_view> hf_model_types;                               // "deepseek_v4"
  void (*check)(const ModelConfig&);                                          // throws kUnsupported with the reason
  void (*set_metadata)(const ModelConfig&, bool mtp, Metadata&);              // the {arch}.* keys
  void (*read_hparams)(const arch::KeyReader&, Hparams&);                     // what those keys say; formats/arch/key_reader.h
  ArchRules (*rules)(const ModelConfig&, bool mtp, const HasTensor& stored);  // throws kUnsupported for layouts it must refuse
};

std::span<const ArchDescriptor> all_archs();
// By config: architectures[0], then model_type. Throws kUnsupported with the reason for known refusals, with what a wrapper (a vision
// model) has inside, and with the known classes of the same family otherwise.
const ArchDescriptor& find_arch(const ModelConfig& config);

}  // namespace quern
