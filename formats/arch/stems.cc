#include "formats/arch/stems.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "formats/arch/other_archs.h"

// One table says what the stem of a name means: the tensor's role, whether a mix may choose its type, and which other weights multiply
// the same input. llama-quantize leaves alone what is a vector, a norm, a router or not named `.weight`; it would quantize DeepSeek-V4's
// hyper-connections, compressors and position tables, a percent of the file that steers all the rest.
//
// Architectures that have no descriptor here come as GGUF files. Of those that llama.cpp runs, what llama-quantize keeps is kept: a second
// list has the pieces of names that it goes by (convolutions, position tables, the small matrices of RWKV and Gemma 3n). Of any other only
// the matrices with a name of their own in the table are known to be ones, and the rest stays as it is stored.
// Sources: llama.cpp src/llama-quant.cpp (tensor_allows_quantization), conversion/base.py (prepare_tensors); V4: ours, for the reasons in
// docs/adding-an-architecture.md.

namespace quern {

namespace {

// Inputs that several matrices of a block share.
enum class Input {
  kOwn,
  kAttention,    // the normalised state
  kQueryLatent,  // the low-rank query
  kKeyLatent,    // MLA's latent. The input of attn_v_b is a mean of latents over the keys, but lies in the same directions.
  kDense,        // the normalised state after attention; its experts see other rows of it
  kExperts,
  kShared
};

struct StemKind {
  std::string_view stem;  // the name without "blk.N." and ".weight"; one that ends in '*' is a prefix
  Role role;
  Keep keep;
  Input input = Input::kOwn;
};

// The first match wins.
constexpr std::array kStems = {
    StemKind{"token_embd", Role::kTokenEmbedding, Keep::kMix},
    StemKind{"output", Role::kOutput, Keep::kMix},
    StemKind{"output_hc_*", Role::kHyperConnection, Keep::kF32},
    StemKind{"hc_*", Role::kHyperConnection, Keep::kF32},
    StemKind{"attn_sinks", Role::kAttention, Keep::kF32},
    StemKind{"attn_q", Role::kAttention, Keep::kMix, Input::kAttention},
    StemKind{"attn_k", Role::kAttention, Keep::kMix, Input::kAttention},
    StemKind{"attn_v", Role::kAttention, Keep::kMix, Input::kAttention},
    StemKind{"attn_qkv", Role::kAttention, Keep::kMix, Input::kAttention},
    StemKind{"attn_q_a", Role::kAttention, Keep::kMix, Input::kAttention},
    StemKind{"attn_kv_a_mqa", Role::kAttention, Keep::kMix, Input::kAttention},
    StemKind{"attn_kv", Role::kAttention, Keep::kMix, Input::kAttention},
    StemKind{"attn_compressor_kv", Role::kCompressor, Keep::kSource, Input::kAttention},
    StemKind{"attn_compressor_gate", Role::kCompressor, Keep::kSource, Input::kAttention},
    StemKind{"attn_compressor_ape", Role::kCompressor, Keep::kF32},
    StemKind{"attn_compressor_*", Role::kCompressor, Keep::kSource},
    StemKind{"attn_q_b", Role::kAttention, Keep::kMix, Input::kQueryLatent},
    StemKind{"attn_kv_b", Role::kAttention, Keep::kMix, Input::kKeyLatent},
    StemKind{"attn_v_b", Role::kAttention, Keep::kMix, Input::kKeyLatent},
    StemKind{"attn_*", Role::kAttention, Keep::kMix},
    StemKind{"indexer_compressor_kv", Role::kIndexer, Keep::kSource, Input::kAttention},
    StemKind{"indexer_compressor_gate", Role::kIndexer, Keep::kSource, Input::kAttention},
    StemKind{"indexer_compressor_ape", Role::kIndexer, Keep::kF32},
    StemKind{"indexer_compressor_*", Role::kIndexer, Keep::kSource},
    StemKind{"indexer.proj", Role::kIndexer, Keep::kSource, Input::kAttention},
    StemKind{"indexer.attn_q_b", Role::kIndexer, Keep::kMix, Input::kQueryLatent},
    StemKind{"indexer.*", Role::kIndexer, Keep::kMix},
    StemKind{"ffn_gate_inp", Role::kRouter, Keep::kF32},
    StemKind{"ffn_gate_inp_shexp", Role::kRouter, Keep::kF32},
    StemKind{"ffn_gate_tid2eid", Role::kRouter, Keep::kInteger},
    StemKind{"exp_probs_b", Role::kRouter, Keep::kF32},
    StemKind{"ffn_gate", Role::kDenseFfn, Keep::kMix, Input::kDense},
    StemKind{"ffn_up", Role::kDenseFfn, Keep::kMix, Input::kDense},
    StemKind{"ffn_down", Role::kDenseFfn, Keep::kMix},
    StemKind{"ffn_gate_exps", Role::kRoutedExpert, Keep::kMix, Input::kExperts},
    StemKind{"ffn_up_exps", Role::kRoutedExpert, Keep::kMix, Input::kExperts},
    StemKind{"ffn_gate_up_exps", Role::kRoutedExpert, Keep::kMix, Input::kExperts},
    StemKind{"ffn_down_exps", Role::kRoutedExpert, Keep::kMix},
    StemKind{"ffn_gate_shexp", Role::kSharedExpert, Keep::kMix, Input::kShared},
    StemKind{"ffn_up_shexp", Role::kSharedExpert, Keep::kMix, Input::kShared},
    StemKind{"ffn_down_shexp", Role::kSharedExpert, Keep::kMix},
    StemKind{"nextn.eh_proj", Role::kMtp, Keep::kSource},
    StemKind{"nextn.*", Role::kMtp, Keep::kMix},
    StemKind{"rope_*", Role::kOther, Keep::kF32},
    StemKind{"*", Role::kOther, Keep::kMix},
};

constexpr std::string_view kWeight = ".weight";

// Pieces of names of matrices that llama-quantize never touches, beside routers and norms.
constexpr std::array<std::string_view, 34> kUntouched = {
    "altup", "laurel", "per_layer_model_proj", "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight",
    "time_mix_first.weight", "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight", "time_mix_v1.weight",
    "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight", "time_mix_g1.weight", "time_mix_g2.weight",
    "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight", "attn_rel_b.weight", ".position_embd",
    "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
    // whole names
    "position_embd.weight", "token_types.weight"};

bool is_untouched(std::string_view name) {
  return std::ranges::any_of(kUntouched, [=](std::string_view piece) { return name.find(piece) != std::string_view::npos; });
}

const StemKind& find_stem(std::string_view stem) {
  return *std::ranges::find_if(kStems, [&](const StemKind& kind) { return matches_pattern(kind.stem, stem); });  // "*" matches all
}

}  // namespace

BlockName split_block_name(std::string_view gguf_name) noexcept {
  constexpr std::string_view kBlock = "blk.";
  const BlockName outside{-1, gguf_name};
  if (!gguf_name.starts_with(kBlock)) return outside;
  const char* const last = gguf_name.data() + gguf_name.size();
  int64_t layer = -1;
  const auto [end, error] = std::from_chars(gguf_name.data() + kBlock.size(), last, layer);
  if (error != std::errc() || layer < 0 || end == last || *end != '.') return outside;
  return {layer, gguf_name.substr(static_cast<size_t>(end + 1 - gguf_name.data()))};
}

std::string block_name(int64_t layer, std::string_view name) { return "blk." + std::to_string(layer) + "." + std::string(name); }

TensorKind classify_tensor(std::string_view arch, std::string_view gguf_name, int rank) {
  const auto [layer, name] = split_block_name(gguf_name);
  std::string_view stem = name;
  if (stem.ends_with(".bias")) return {stem.starts_with("exp_probs_b") ? Role::kRouter : Role::kBias, Keep::kF32, layer};
  if (!stem.ends_with(kWeight)) return {Role::kOther, Keep::kF32, layer};  // NVFP4 `.scale` and the like
  stem.remove_suffix(kWeight.size());
  if (stem.ends_with("_norm") || stem == "nextn.enorm" || stem == "nextn.hnorm") return {Role::kNorm, Keep::kF32, layer};

  const StemKind& kind = find_stem(stem);
  Keep keep = kind.keep;
  if (kind.stem == "ffn_gate_inp" && arch == "deepseek4") keep = Keep::kSource;  // BF16 in public files, 0.1 % of the weights
  const bool known = kind.stem.find('*') == std::string_view::npos || runs_in_llama_cpp(arch);
  if (keep == Keep::kMix && (is_untouched(gguf_name) || !known)) keep = Keep::kSource;
  if (rank <= 1 && keep != Keep::kInteger) keep = Keep::kF32;
  return {kind.role, keep, layer};
}

std::vector<std::string> weights_with_same_input(std::string_view gguf_name) {
  std::vector<std::string> names;
  const auto [layer, name] = split_block_name(gguf_name);
  if (layer < 0 || !name.ends_with(kWeight)) return names;
  const StemKind& own = find_stem(name.substr(0, name.size() - kWeight.size()));
  for (const StemKind& other : kStems) {
    if (own.input != Input::kOwn && other.input == own.input && &other != &own) {
      names.push_back(block_name(layer, std::string(other.stem).append(kWeight)));
    }
  }
  return names;
}

bool matches_pattern(std::string_view pattern, std::string_view name) noexcept {
  const size_t star = pattern.find('*');
  if (star == std::string_view::npos) return pattern == name;
  if (!name.starts_with(pattern.substr(0, star))) return false;
  name.remove_prefix(star);
  pattern.remove_prefix(star + 1);
  if (pattern.find('*') == std::string_view::npos) return name.ends_with(pattern);
  for (size_t skipped = 0; skipped <= name.size(); ++skipped) {
    if (matches_pattern(pattern, name.substr(skipped))) return true;
  }
  return false;
}

}  // namespace quern
