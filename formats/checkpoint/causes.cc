#include "formats/checkpoint/causes.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "formats/arch/stems.h"
#include "formats/base/error.h"
#include "formats/base/problems.h"
#include "formats/checkpoint/transforms.h"

// One wrong number in config.json makes hundreds of tensors missing, unclaimed or misshapen, and none of those messages names it. So when
// something does not fit, the numbers that tensors count by themselves are counted: layers and experts by their names, the vocabulary and
// the width by the rows of the tensors that have them. This is asked only after a failure and never refuses what fits.

namespace quern::checkpoint {
namespace {

using safetensors::Checkpoint;
using safetensors::StoredTensor;

const TensorRule* find_rule(const ArchRules& rules, std::string_view gguf_name) {
  const auto rule = std::ranges::find(rules.rules, gguf_name, &TensorRule::name);
  return rule == rules.rules.end() ? nullptr : &*rule;
}

bool is_ignored(const ArchRules& rules, std::string_view name) {
  return std::ranges::any_of(rules.ignored, [&](const std::string& pattern) { return matches_pattern(pattern, name); });
}

[[noreturn]] void wrong_number(const ModelConfig& config, std::string_view key, int64_t value, const std::string& stored, int64_t right) {
  const std::string name(config.spelling(key));
  throw Error(ErrorKind::kFormat, "config.json: '" + name + "' is " + std::to_string(value) + ", but " + stored + "; set " + name + " to " +
                                      std::to_string(right) + " if the checkpoint is complete");
}

// The rows that a tensor has, where it and its rule differ in nothing else; 0 where it is absent, fits, or differs more.
int64_t other_rows(const Checkpoint& checkpoint, const TensorRule* rule) {
  const StoredTensor* stored = rule == nullptr ? nullptr : checkpoint.find(rule->stored);
  if (stored == nullptr || stored->shape.rank() != rule->shape.rank() || stored->shape[0] == rule->shape[0]) return 0;
  return stored->shape.rank() > 1 && stored->shape.row_length() != rule->shape.row_length() ? 0 : stored->shape[0];
}

void check_width(const Checkpoint& checkpoint, const ArchRules& rules, const ModelConfig& config) {
  const TensorRule* norm = find_rule(rules, "output_norm.weight");
  const int64_t entries = other_rows(checkpoint, norm);
  if (entries == 0) return;
  wrong_number(config, "hidden_size", norm->shape[0], in_quotes(norm->stored) + " has " + std::to_string(entries) + " entries", entries);
}

void check_vocabulary(const Checkpoint& checkpoint, const ArchRules& rules, const ModelConfig& config) {
  const TensorRule* embedding = find_rule(rules, "token_embd.weight");
  const TensorRule* output = find_rule(rules, "output.weight");
  const int64_t rows = other_rows(checkpoint, embedding), output_rows = other_rows(checkpoint, output);
  const bool has_output = output != nullptr && checkpoint.find(output->stored) != nullptr;
  if (has_output && rows != output_rows) {
    const auto rows_of = [&](const TensorRule& rule) {
      return in_quotes(rule.stored) + " has " + std::to_string(checkpoint.find(rule.stored)->shape[0]) + " rows";
    };
    if (checkpoint.find(embedding->stored) == nullptr || checkpoint.find(output->stored)->shape.rank() == 0) return;
    throw Error(ErrorKind::kFormat, "config.json: 'vocab_size' is " + std::to_string(embedding->shape[0]) + ", but " + rows_of(*embedding) +
                                        " and " + rows_of(*output) + "; resize one of them (resize_token_embeddings of transformers)");
  }
  if (rows == 0) return;
  wrong_number(config, "vocab_size", embedding->shape[0], in_quotes(embedding->stored) + " has " + std::to_string(rows) + " rows", rows);
}

// The number of which `name` has the digits between two known pieces; -1 for other names.
int64_t number_in(std::string_view name, std::string_view before, std::string_view after) {
  if (!name.starts_with(before)) return -1;
  name.remove_prefix(before.size());
  int64_t number = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  name.remove_prefix(static_cast<size_t>(end - name.data()));
  return error == std::errc() && name.starts_with(after) ? number : -1;
}

// How many different things the names count: one more than the largest number.
int64_t count_names(const Checkpoint& checkpoint, const ArchRules& rules, std::string_view before, std::string_view after) {
  int64_t n = 0;
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    const int64_t number = number_in(tensor.name, before, after);
    if (number >= n && !is_ignored(rules, tensor.name)) n = number + 1;
  }
  return n;
}

void check_layers(const Checkpoint& checkpoint, const ArchRules& rules, const ModelConfig& config) {
  const auto first = std::ranges::find(rules.rules, 0, &TensorRule::layer);
  if (first == rules.rules.end()) return;
  const size_t at = first->stored.find("0.");
  if (at == 0 || at == std::string::npos || first->stored[at - 1] != '.') return;
  const std::string before = first->stored.substr(0, at);
  const int64_t wanted = config.get_count("num_hidden_layers"), found = count_names(checkpoint, rules, before, ".");
  if (found == 0 || found == wanted) return;
  const std::string last = before + std::to_string(found - 1) + ".";
  wrong_number(config, "num_hidden_layers", wanted,
               "the last layer that is stored is " + in_quotes(last) + ", number " + std::to_string(found), found);
}

constexpr std::string_view kExpert = "{e}";

// How many experts are stored under the names of a rule; 0 for rules without experts.
int64_t count_experts(const Checkpoint& checkpoint, const ArchRules& rules, const TensorRule& rule) {
  const std::string_view stored = rule.stored;
  if (const size_t at = stored.find(kExpert); at != stored.npos) {
    return count_names(checkpoint, rules, stored.substr(0, at), stored.substr(at + kExpert.size()));
  }
  if (rule.role != Role::kRoutedExpert || rule.shape.rank() != 3) return 0;
  const StoredTensor* stack = checkpoint.find(stored);
  return stack == nullptr || stack->shape.rank() == 0 ? 0 : stack->shape[0];
}

void check_experts(const Checkpoint& checkpoint, const ArchRules& rules, const ModelConfig& config) {
  for (const TensorRule& rule : rules.rules) {
    const int64_t found = count_experts(checkpoint, rules, rule);
    if (found == 0 || found == rule.shape[0]) continue;
    wrong_number(config, "num_experts", rule.shape[0], in_quotes(rule.stored) + " is stored for " + std::to_string(found) + " experts",
                 found);
  }
}

void check_output(const Checkpoint& checkpoint, const ArchRules& rules) {
  const TensorRule* output = find_rule(rules, "output.weight");
  const TensorRule* embedding = find_rule(rules, "token_embd.weight");
  if (output == nullptr || embedding == nullptr || checkpoint.find(output->stored) != nullptr ||
      checkpoint.find(embedding->stored) == nullptr)
    return;
  throw Error(ErrorKind::kFormat, "config.json: 'tie_word_embeddings' is false or absent, but " + in_quotes(output->stored) +
                                      " is not stored; set tie_word_embeddings to true if " + in_quotes(embedding->stored) +
                                      " serves for both, else the checkpoint is incomplete");
}

void check_adapter(const Checkpoint& checkpoint) {
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    if (tensor.name.find(".lora_") == std::string::npos && tensor.name.find(".base_layer.") == std::string::npos) continue;
    throw Error(ErrorKind::kUnsupported, in_quotes(tensor.name) + " belongs to an adapter that is not merged into the weights; merge it " +
                                             "(merge_and_unload of PEFT), save the model and convert that");
  }
}

// Not one name in common: each side shows what it has.
void check_names(const Checkpoint& checkpoint, const ArchRules& rules) {
  const TensorRule* example = nullptr;
  for (const TensorRule& rule : rules.rules) {
    if (rule.transform == Transform::kGenerated) continue;
    if (example == nullptr) example = &rule;
    if (count_experts(checkpoint, rules, rule) > 0) return;
    if (rule.stored.find(kExpert) != std::string::npos) continue;
    const auto is_stored = [&](const std::string& name) { return checkpoint.find(name) != nullptr; };
    if (std::ranges::any_of(stored_names(rule), is_stored)) return;
  }
  if (example == nullptr || checkpoint.tensors().empty()) return;
  throw Error(ErrorKind::kFormat, "none of the " + std::to_string(checkpoint.tensors().size()) +
                                      " stored tensors has a name that this architecture knows: stored is " +
                                      in_quotes(checkpoint.tensors().front().name) + ", expected " + in_quotes(example->stored) +
                                      "; the weights are of another model or in another layout");
}

}  // namespace

void throw_cause(const Checkpoint& checkpoint, const ArchRules& rules, const ModelConfig& config) {
  check_adapter(checkpoint);
  check_vocabulary(checkpoint, rules, config);
  check_width(checkpoint, rules, config);
  check_names(checkpoint, rules);
  if (config.has("num_hidden_layers")) check_layers(checkpoint, rules, config);
  if (config.has("num_experts")) check_experts(checkpoint, rules, config);
  check_output(checkpoint, rules);
}

}  // namespace quern::checkpoint
