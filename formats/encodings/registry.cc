#include "formats/encodings/registry.h"

#include <algorithm>
#include <set>

#include "formats/arch/config.h"

// Which encoding a tensor is in is decided by names, types and shapes of what is stored; config.json only supplies numbers, because it
// is wrong or silent often enough. The rows are asked in order and the first that claims a tensor has it, so a row must not claim what
// a later one reads better. The last row takes everything that is stored under its own name, if only to say what is wrong with it.

namespace quern::encodings {

extern const Encoding kFp4Pairs;
extern const Encoding kScaledFp8;
extern const Encoding kBlockFp8;
extern const Encoding kPlain;

namespace {

using safetensors::Checkpoint;
using safetensors::StoredTensor;

constexpr std::array<const Encoding*, 4> kEncodings = {&kFp4Pairs, &kScaledFp8, &kBlockFp8, &kPlain};

const Encoding* find_encoding(const Wanted& wanted) {
  const auto found = std::ranges::find_if(kEncodings, [&](const Encoding* encoding) { return encoding->claims(wanted); });
  return found == kEncodings.end() ? nullptr : *found;
}

Error config_error(const std::string& text) { return Error(ErrorKind::kUnsupported, "config.json: " + text); }

}  // namespace

void refuse_unknown_method(const ModelConfig& config) {
  if (!config.has_prefix("quantization_config.")) return;
  const std::string method = config.find_string("quantization_config.quant_method").value_or("");
  std::set<std::string> known;
  for (const Encoding* encoding : kEncodings) known.insert(encoding->methods.begin(), encoding->methods.end());
  if (known.contains(method)) return;
  std::string list;
  for (const std::string& name : known) {
    if (!list.empty()) list += name == *known.rbegin() ? " and " : ", ";
    list += in_quotes(name);
  }
  throw config_error("quantization_config has quant_method '" + printable(method) + "', known are " + list +
                     "; a checkpoint of this model in one of these, or in BF16, can be converted if there is one");
}

void check_config(const ModelConfig& config) {
  if (config.has("quantization.bits"))
    throw config_error("`quantization` says this is an MLX checkpoint; convert the one that it was made from");
  for (const Encoding* encoding : kEncodings) {
    if (encoding->check_config != nullptr) encoding->check_config(config);
  }
}

Promise promise(const ModelConfig& config, const LogicalTensor& tensor, DType plain) {
  for (const Encoding* encoding : kEncodings) {
    if (encoding->promise == nullptr) continue;
    if (std::optional<Promise> promised = encoding->promise(config, tensor, plain)) return std::move(*promised);
  }
  return {plain, {}};
}

bool is_stored(const Checkpoint& checkpoint, const ModelConfig& config, std::string_view name) {
  return find_encoding({checkpoint, config, name, checkpoint.find(name)}) != nullptr;
}

std::optional<EncodedTensor> find_encoded(const Checkpoint& checkpoint, const ModelConfig& config, std::string_view name,
                                          const Shape& shape, bool integer, Problems& problems) {
  const Wanted wanted{checkpoint, config, name, checkpoint.find(name)};
  if (wanted.stored != nullptr) {
    const DType dtype = wanted.stored->dtype;
    const bool is_integer = dtype == DType::I64 || dtype == DType::I32;
    if (integer != is_integer) {
      problems.add(ErrorKind::kFormat,
                   in_quotes(name) + " is " + std::string(name_of(dtype)) + ", expected " + (integer ? "I64 or I32" : "a float type"));
      return std::nullopt;
    }
  }
  const Encoding* encoding = find_encoding(wanted);
  if (encoding == nullptr) {
    problems.add(ErrorKind::kFormat, "missing tensor " + in_quotes(name));
    return std::nullopt;
  }
  std::optional<EncodedTensor> tensor = encoding->find(wanted, shape, problems);
  if (tensor) tensor->encoding = encoding;
  return tensor;
}

std::vector<std::string> weights_of(std::string_view name) {
  std::vector<std::string> names;
  for (const Encoding* encoding : kEncodings) {
    for (const Companion& companion : encoding->companions) {
      if (name.ends_with(companion.ending)) names.push_back(with_ending(name, companion.ending, companion.weights_ending));
    }
  }
  return names;
}

std::string_view foreign_encoding(std::string_view name) noexcept {
  // Longest ending first where one ends in another.
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 20> kEndings = {{
      {"weight_packed", "compressed-tensors"},
      {"weight_global_scale", "compressed-tensors"},
      {"input_global_scale", "compressed-tensors"},
      {"weight_zero_point", "compressed-tensors"},
      {"weight_shape", "compressed-tensors"},
      {"weight_g_idx", "compressed-tensors"},
      {"weight_scale_2", "NVIDIA ModelOpt"},
      {"input_scale", "8-bit integers with static activation scales"},
      {"activation_scale", "8-bit integers with static activation scales"},
      {"weight_scale", "integers with per-tensor or per-row scales"},
      {"qscale_weight", "Mistral's FP8"},
      {"qscale_act", "Mistral's FP8"},
      {"qweight", "GPTQ or AWQ"},
      {"qzeros", "GPTQ or AWQ"},
      {"g_idx", "GPTQ"},
      {".scales", "MLX, GPTQ or AWQ"},
      {".biases", "MLX"},
      {"absmax", "bitsandbytes"},
      {"quant_map", "bitsandbytes"},
      {".SCB", "bitsandbytes"},
  }};
  if (name.find(".quant_state.") != name.npos) return "bitsandbytes";
  for (const auto& [ending, encoding] : kEndings) {
    if (name.ends_with(ending)) return encoding;
  }
  return {};
}

}  // namespace quern::encodings
