#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "formats/base/model_folder.h"

namespace quern {

// The config.json of a checkpoint as typed, range-checked lookups, plus its generation_config.json under the prefix
// "generation_config.". It hides what differs between exporters, as transformers' own loader does:
//  - `text_config` (or `llm_config`, `language_config`) overrides the outer object, because multimodal wrappers nest the language model's
//  fields;
//  - `null` is the same as absent;
//  - a count may be written as 4096.0 and a factor as 40;
//  - old names of a field count as the new one (n_layer for num_hidden_layers; the table is in config.cc), compression_config as
//    quantization_config;
//  - NaN, Infinity and -Infinity, which Python writes, stop nothing where nobody asks for the number.
// Where two spellings of one setting disagree, that counts which transformers would take, and a note says so.
// Keys of nested objects are joined by dots: "rope_scaling.factor".
// Every error is kFormat and names file and key: "config.json: 'num_attention_heads' is missing".
class ModelConfig {
 public:
  // Throws kFormat on text that is not one JSON object, is nested deeper than 32 levels or larger than 8 MiB.
  static ModelConfig parse(std::string_view config_json, std::string_view generation_json = {});

  // What the files say twice in different ways, one line each. load_config adds a generation_config.json that could not be read.
  std::span<const std::string> notes() const noexcept { return notes_; }

  bool has(std::string_view key) const noexcept;            // present and not null, under this name or an older one
  bool has_list(std::string_view key) const noexcept;       // the same, and an array: some fields are either a value or a list of them
  bool has_prefix(std::string_view prefix) const noexcept;  // any key that starts so: "rope_scaling." asks for a nested object

  // The name under which the file has the field, an older one perhaps; the name itself when it is absent.
  std::string_view spelling(std::string_view key) const noexcept;

  // The object around a language model whose fields are nested: a vision or audio model.
  struct Wrapper {
    std::string architecture;           // its own class, may be empty
    std::string model_type;             // may be empty
    std::string nested;                 // "text_config"
    std::vector<std::string> siblings;  // objects beside it: "vision_config"
  };
  const std::optional<Wrapper>& wrapper() const noexcept { return wrapper_; }  // empty for a language model by itself

  // Integers between min and max. Counts are integers from 1 to 2^31 - 1: dimensions and numbers of things, of which none is larger
  // in any model, so that products of three of them are the only ones that need checking.
  std::optional<int64_t> find_int(std::string_view key, int64_t min, int64_t max) const;
  int64_t get_count(std::string_view key) const;
  int64_t get_count(std::string_view key, int64_t absent) const;
  int64_t get_int(std::string_view key, int64_t min, int64_t max) const;

  std::optional<double> find_float(std::string_view key) const;  // finite
  double get_float(std::string_view key) const;
  double get_float(std::string_view key, double absent) const;
  bool get_bool(std::string_view key, bool absent) const;
  std::optional<std::string> find_string(std::string_view key) const;

  // Numbers of tokens, written as one or as a list of them; empty when absent. Below 0 means "none", and is left out.
  std::vector<int64_t> find_token_ids(std::string_view key) const;

  // A missing array and an array of another kind differ: the second throws.
  std::optional<std::vector<int64_t>> find_int_array(std::string_view key, int64_t min, int64_t max) const;
  std::optional<std::vector<std::string>> find_string_array(std::string_view key) const;

 private:
  friend class ConfigBuilder;  // fills fields_ from JSON in config.cc, which alone knows the JSON library
  friend ModelConfig load_config(const ModelFolder& folder);

  struct Opaque {};  // an array of anything that no rule reads
  using Value = std::variant<bool, int64_t, double, std::string, std::vector<double>, std::vector<std::string>, Opaque>;

  const Value* find(std::string_view key) const noexcept;
  const Value* find_exactly(std::string_view key) const noexcept;
  void note_contradictions();
  void note_contradiction(std::string_view counts, std::string_view other);
  bool scaling_differs() const;

  std::map<std::string, Value, std::less<>> fields_;
  std::vector<std::string> notes_;
  std::optional<Wrapper> wrapper_;
};

// Reads config.json and, if there is one, generation_config.json of a checkpoint folder. A broken generation_config.json counts as
// absent with a note (it holds suggestions only). Throws kIo when config.json cannot be read.
ModelConfig load_config(const ModelFolder& folder);

}  // namespace quern
