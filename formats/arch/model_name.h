#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace quern {

// The parts of a hub model name such as "Mixtral-8x7B-Instruct-v0.1", as the GGUF naming convention has them; a part that the name
// does not have is empty. When only a base name could be told apart, everything but `full` is empty: too ambiguous.
// Source of the rules: llama.cpp gguf-py/gguf/metadata.py (get_model_id_components).
struct ModelName {
  std::string organization;  // before the first slash
  std::string full;
  std::string basename;    // "Mixtral"
  std::string size_label;  // "8x7B"
  std::string finetune;    // "Instruct"
  std::string version;     // "v0.1"
};

// total_weights tells a size ("8B") from a context length ("128k"); 0 when unknown. A name with spaces is a title, not an id: only
// `full` is set.
ModelName parse_model_name(std::string_view id, int64_t total_weights);

// "deepseek-coder-v2" -> "Deepseek Coder v2": words in lower case get a capital, versions and numbers stay.
std::string title_of(std::string_view name);

// "8.0B", "671B", "1.6T": at least two digits. Source: llama.cpp gguf-py/gguf/utility.py (model_weight_count_rounded_notation).
std::string rounded_count(int64_t n_weights);

}  // namespace quern
