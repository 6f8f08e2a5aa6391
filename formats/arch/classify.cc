#include <array>
#include <charconv>

#include "formats/arch/descriptor.h"

// Which tensors may be quantized, by GGUF name. llama-quantize leaves alone what is a vector, a norm, a router or not named `.weight`;
// it would quantize DeepSeek-V4's hyper-connections, compressors and position tables, a percent of the file that steers all the
// rest. Sources: llama.cpp src/llama-quant.cpp (tensor_allows_quantization), conversion/base.py (prepare_tensors); V4: ours, for
// the reasons in docs/adding-an-architecture.md.

namespace quern {

namespace {

struct StemKind {
  std::string_view stem;  // the name without "blk.N." and ".weight"; one that ends in '*' is a prefix
  Role role;
  Keep keep;
};

// First match wins.
constexpr std::array kStems = {
    StemKind{"token_embd", Role::kTokenEmbedding, Keep::kMix},
    StemKind{"output", Role::kOutput, Keep::kMix},
    StemKind{"output_hc_*", Role::kHyperConnection, Keep::kF32},
    StemKind{"hc_*", Role::kHyperConnection, Keep::kF32},
    StemKind{"attn_sinks", Role::kAttention, Keep::kF32},
    StemKind{"attn_compressor_ape", Role::kCompressor, Keep::kF32},
    StemKind{"attn_compressor_*", Role::kCompressor, Keep::kSource},
    StemKind{"attn_*", Role::kAttention, Keep::kMix},
    StemKind{"indexer_compressor_ape", Role::kIndexer, Keep::kF32},
    StemKind{"indexer_compressor_*", Role::kIndexer, Keep::kSource},
    StemKind{"indexer.proj", Role::kIndexer, Keep::kSource},
    StemKind{"indexer.*", Role::kIndexer, Keep::kMix},
    StemKind{"ffn_gate_inp", Role::kRouter, Keep::kF32},
    StemKind{"ffn_gate_inp_shexp", Role::kRouter, Keep::kF32},
    StemKind{"ffn_gate_tid2eid", Role::kRouter, Keep::kInteger},
    StemKind{"exp_probs_b", Role::kRouter, Keep::kF32},
    StemKind{"ffn_gate", Role::kDenseFfn, Keep::kMix},
    StemKind{"ffn_up", Role::kDenseFfn, Keep::kMix},
    StemKind{"ffn_down", Role::kDenseFfn, Keep::kMix},
    StemKind{"ffn_gate_exps", Role::kRoutedExpert, Keep::kMix},
    StemKind{"ffn_up_exps", Role::kRoutedExpert, Keep::kMix},
    StemKind{"ffn_down_exps", Role::kRoutedExpert, Keep::kMix},
    StemKind{"ffn_gate_up_exps", Role::kRoutedExpert, Keep::kMix},
    StemKind{"ffn_gate_shexp", Role::kSharedExpert, Keep::kMix},
    StemKind{"ffn_up_shexp", Role::kSharedExpert, Keep::kMix},
    StemKind{"ffn_down_shexp", Role::kSharedExpert, Keep::kMix},
    StemKind{"nextn.eh_proj", Role::kMtp, Keep::kSource},
    StemKind{"nextn.*", Role::kMtp, Keep::kMix},
    StemKind{"rope_*", Role::kOther, Keep::kF32},
    StemKind{"*", Role::kOther, Keep::kMix},
};

// "blk.12.attn_q.weight" -> 12 and "attn_q.weight"; -1 and the whole name outside blocks.
int64_t split_layer(std::string_view& name) {
  constexpr std::string_view kBlock = "blk.";
  if (!name.starts_with(kBlock)) return -1;
  const char* first = name.data() + kBlock.size();
  const char* last = name.data() + name.size();
  int64_t layer = -1;
  const auto [end, error] = std::from_chars(first, last, layer);
  if (error != std::errc() || layer < 0 || end == last || *end != '.') return -1;
  name.remove_prefix(static_cast<size_t>(end + 1 - name.data()));
  return layer;
}

}  // namespace

TensorKind classify_tensor(std::string_view arch, std::string_view gguf_name, int rank) {
  constexpr std::string_view kWeight = ".weight";
  std::string_view stem = gguf_name;
  const int64_t layer = split_layer(stem);
  if (stem.ends_with(".bias")) return {stem.starts_with("exp_probs_b") ? Role::kRouter : Role::kBias, Keep::kF32, layer};
  if (!stem.ends_with(kWeight)) return {Role::kOther, Keep::kF32, layer};  // NVFP4 `.scale` and the like
  stem.remove_suffix(kWeight.size());
  if (stem.ends_with("_norm") || stem == "nextn.enorm" || stem == "nextn.hnorm") return {Role::kNorm, Keep::kF32, layer};

  for (const StemKind& kind : kStems) {
    if (!matches_pattern(kind.stem, stem)) continue;
    Keep keep = kind.keep;
    if (kind.stem == "ffn_gate_inp" && arch == "deepseek4") keep = Keep::kSource;  // BF16 in public files, 0.1 % of the weights
    if (rank <= 1 && keep != Keep::kInteger) keep = Keep::kF32;
    return {kind.role, keep, layer};
  }
  return {Role::kOther, Keep::kMix, layer};
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
