#include "formats/arch/stems.h"

#include <algorithm>
#include <array>
#include <charconv>

// One table says what the stem of a name means: the tensor's role, whether a mix may choose its type, and which other weights multiply
// the same input. llama-quantize leaves alone what is a vector, a norm, a router or not named `.weight`; it would quantize DeepSeek-V4's
// hyper-connections, compressors and position tables, a percent of the file that steers all the rest.
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
