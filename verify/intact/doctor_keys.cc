#include <array>
#include <cmath>

#include "formats/base/error.h"
#include "formats/base/nearest.h"
#include "formats/base/utf8.h"
#include "formats/gguf/metadata_text.h"
#include "verify/intact/doctor_parts.h"

// llama.cpp compares the type of every key that it reads with the one it wants and converts nothing, so a number of another width is as
// wrong as a string. The table names the keys that all architectures share; what only some of them read is left to the readers of
// hyperparameters. "{arch}" at the beginning stands for the architecture.

namespace quern {
namespace {

constexpr std::string_view kArch = "{arch}.";

struct KnownKey {
  std::string_view key;
  std::string_view types;  // type_name() of what is read, several with '|' between them
};

constexpr std::string_view kCounts = "u32|[u32]|[i32]";  // one for all layers or one for each
constexpr std::array kKnownKeys = {
    KnownKey{"general.architecture", "str"},
    KnownKey{"general.type", "str"},
    KnownKey{"general.name", "str"},
    KnownKey{"general.author", "str"},
    KnownKey{"general.version", "str"},
    KnownKey{"general.description", "str"},
    KnownKey{"general.license", "str"},
    KnownKey{"general.url", "str"},
    KnownKey{"general.tags", "[str]"},
    KnownKey{"general.languages", "[str]"},
    KnownKey{"general.file_type", "u32"},
    KnownKey{"general.quantization_version", "u32"},
    KnownKey{"{arch}.vocab_size", "u32"},
    KnownKey{"{arch}.context_length", "u32"},
    KnownKey{"{arch}.embedding_length", "u32"},
    KnownKey{"{arch}.block_count", "u32"},
    KnownKey{"{arch}.feed_forward_length", kCounts},
    KnownKey{"{arch}.expert_count", "u32"},
    KnownKey{"{arch}.expert_used_count", "u32"},
    KnownKey{"{arch}.expert_feed_forward_length", kCounts},
    KnownKey{"{arch}.attention.head_count", kCounts},
    KnownKey{"{arch}.attention.head_count_kv", kCounts},
    KnownKey{"{arch}.attention.key_length", "u32"},
    KnownKey{"{arch}.attention.value_length", "u32"},
    KnownKey{"{arch}.attention.layer_norm_epsilon", "f32"},
    KnownKey{"{arch}.attention.layer_norm_rms_epsilon", "f32"},
    KnownKey{"{arch}.rope.dimension_count", "u32"},
    KnownKey{"{arch}.rope.freq_base", "f32"},
    KnownKey{"{arch}.rope.scaling.type", "str"},
    KnownKey{"{arch}.rope.scaling.factor", "f32"},
    KnownKey{"{arch}.rope.scaling.original_context_length", "u32"},
    KnownKey{"tokenizer.ggml.model", "str"},
    KnownKey{"tokenizer.ggml.pre", "str"},
    KnownKey{"tokenizer.ggml.tokens", "[str]"},
    KnownKey{"tokenizer.ggml.scores", "[f32]"},
    KnownKey{"tokenizer.ggml.token_type", "[i32]|[u32]"},
    KnownKey{"tokenizer.ggml.merges", "[str]"},
    KnownKey{"tokenizer.ggml.bos_token_id", "u32"},
    KnownKey{"tokenizer.ggml.eos_token_id", "u32"},
    KnownKey{"tokenizer.ggml.eot_token_id", "u32"},
    KnownKey{"tokenizer.ggml.eom_token_id", "u32"},
    KnownKey{"tokenizer.ggml.unknown_token_id", "u32"},
    KnownKey{"tokenizer.ggml.seperator_token_id", "u32"},  // as llama.cpp spells it
    KnownKey{"tokenizer.ggml.padding_token_id", "u32"},
    KnownKey{"tokenizer.ggml.mask_token_id", "u32"},
    KnownKey{"tokenizer.ggml.fim_pre_token_id", "u32"},
    KnownKey{"tokenizer.ggml.fim_suf_token_id", "u32"},
    KnownKey{"tokenizer.ggml.fim_mid_token_id", "u32"},
    KnownKey{"tokenizer.ggml.add_bos_token", "bool"},
    KnownKey{"tokenizer.ggml.add_eos_token", "bool"},
    KnownKey{"tokenizer.ggml.add_space_prefix", "bool"},
    KnownKey{"tokenizer.ggml.remove_extra_whitespaces", "bool"},
    KnownKey{"tokenizer.chat_template", "str"},
};

std::string architecture_of(const Metadata& metadata) {
  const MetaValue* value = metadata.find("general.architecture");
  const auto* arch = value == nullptr ? nullptr : std::get_if<std::string>(value);
  return arch == nullptr ? "" : *arch;
}

std::string full_name(std::string_view key, const std::string& arch) {
  return key.starts_with(kArch) ? arch + "." + std::string(key.substr(kArch.size())) : std::string(key);
}

bool is_one_of(std::string_view types, std::string_view type) {
  for (;;) {
    const size_t bar = types.find('|');
    if (types.substr(0, bar) == type) return true;
    if (bar == std::string_view::npos) return false;
    types.remove_prefix(bar + 1);
  }
}

// How many of a value's strings are no UTF-8, and how many of its numbers not finite.
struct BadValues {
  size_t n_texts = 0;
  size_t n_numbers = 0;

  template <typename T>
  void count(const T& value) {
    if constexpr (kIsArray<T>) {
      for (const auto& element : value) count<typename T::value_type>(element);
    } else if constexpr (std::is_same_v<T, std::string>) {
      n_texts += is_utf8(value) ? 0 : 1;
    } else if constexpr (std::is_floating_point_v<T>) {
      n_numbers += std::isfinite(value) ? 0 : 1;
    }
  }
};

BadValues bad_values(const MetaValue& value) {
  BadValues bad;
  std::visit([&](const auto& v) { bad.count(v); }, value);
  return bad;
}

// "is" for a value by itself, "has 3 entries that are" for some of an array.
std::string so_many(const MetaValue& value, size_t n) {
  const bool array = type_name(value).starts_with('[');
  return !array ? "is" : "has " + std::to_string(n) + (n == 1 ? " entry that is" : " entries that are");
}

}  // namespace

void examine_keys(const Metadata& metadata, const std::string& where, std::vector<Symptom>& symptoms) {
  const auto add = [&](const std::string& message) { symptoms.push_back({Severity::kBroken, where, message}); };
  const std::string arch = architecture_of(metadata);
  for (const KnownKey& known : kKnownKeys) {
    const std::string key = full_name(known.key, arch);
    const MetaValue* value = metadata.find(key);
    if (value == nullptr || is_one_of(known.types, type_name(*value))) continue;
    add("key '" + printable(key) + "' has the type " + type_name(*value) + ", llama.cpp takes only " +
        std::string(known.types.substr(0, known.types.find('|'))));
  }
  for (const auto& [key, value] : metadata.entries()) {
    const BadValues bad = bad_values(value);
    if (!is_utf8(key)) add("key '" + printable(key) + "' is not UTF-8");
    if (bad.n_texts > 0)
      add("key '" + printable(key) + "' " + so_many(value, bad.n_texts) + " not UTF-8: programs stop at it or show nonsense");
    if (bad.n_numbers > 0) add("key '" + printable(key) + "' " + so_many(value, bad.n_numbers) + " NaN or infinite");
  }
}

std::string unread_key(const Metadata& metadata, std::string_view key) {
  const std::string arch = architecture_of(metadata), prefix(key.substr(0, key.find('.')));
  if (key == prefix || key.starts_with("quern.")) return "";
  const std::string tail(key.substr(prefix.size() + 1));
  std::vector<std::string> names;  // behind the prefix
  for (const KnownKey& known : kKnownKeys) {
    const std::string name = full_name(known.key, arch);
    if (name == key) return "";
    if (name == arch + "." + tail && prefix != "general" && prefix != "tokenizer")
      return "no program reads it, the architecture is '" + printable(arch) + "'; '" + printable(name) + "' is read";
    if (name.starts_with(prefix + ".")) names.push_back(name.substr(prefix.size() + 1));
  }
  for (const Metadata::Entry& entry : metadata.entries()) {
    if (entry.first.starts_with(prefix + ".") && entry.first != key) names.push_back(entry.first.substr(prefix.size() + 1));
  }
  const std::vector<std::string_view> candidates(names.begin(), names.end());
  const std::string_view nearest = nearest_name(tail, candidates);
  return nearest.empty() ? "" : "is a new key; did you mean '" + printable(prefix + "." + std::string(nearest)) + "'?";
}

}  // namespace quern
