#include "formats/checkpoint/outline_source.h"

#include "formats/base/error.h"

namespace quern {
namespace {

[[noreturn]] void no_weights() { throw Error(ErrorKind::kInternal, "the outline of a model has no weights"); }

DType plain_type(const ModelConfig& config) {
  std::string name = config.find_string("torch_dtype").value_or("");
  if (name.empty()) name = config.find_string("dtype").value_or("bfloat16");
  if (name == "float16") return DType::F16;
  return name == "float32" ? DType::F32 : DType::BF16;
}

// DeepSeek-V4 states the type of its experts, gpt-oss a method that applies to nothing else.
bool has_fp4_experts(const ModelConfig& config) {
  return config.find_string("expert_dtype") == "fp4" || config.find_string("quantization_config.quant_method") == "mxfp4";
}

}  // namespace

OutlineSource::OutlineSource(const ModelConfig& config, const ArchRules& rules, Metadata metadata, std::vector<std::string> notes)
    : metadata_(std::move(metadata)), notes_(std::move(notes)) {
  const DType plain = plain_type(config);
  const DType expert = has_fp4_experts(config) ? DType::MXFP4 : plain;
  inexact_fp8_ =
      config.find_string("quantization_config.quant_method") == "fp8" && config.find_string("quantization_config.scale_fmt") != "ue8m0";
  for (const TensorRule& rule : rules.rules) {
    if (!rule.drop_if_equal_to.empty()) continue;
    LogicalTensor tensor;
    tensor.name = rule.name;
    tensor.shape = rule.shape;
    tensor.role = rule.role;
    tensor.keep = rule.keep;
    tensor.layer = rule.layer;
    if (rule.role == Role::kRoutedExpert && rule.shape.rank() == 3) tensor.n_slices = rule.shape[0];
    tensor.source_type = rule.role == Role::kRoutedExpert ? expert : plain;
    if (rule.keep == Keep::kInteger) tensor.source_type = DType::I32;
    if (rule.keep == Keep::kF32) tensor.source_type = DType::F32;
    tensor.source_bytes = tensor_size_bytes(tensor.source_type, tensor.shape);
    tensors_.push_back(std::move(tensor));
  }
}

// The matrices within blocks are FP8; the embedding and what is kept are not.
Exactness OutlineSource::exactness(size_t tensor) const {
  const LogicalTensor& t = tensors_.at(tensor);
  const bool fp8 = inexact_fp8_ && t.keep == Keep::kMix && t.layer >= 0 && t.shape.rank() >= 2 && t.source_type != DType::MXFP4;
  if (fp8) return {std::nullopt, "FP8 weights, and config.json does not say that their scales are powers of two"};
  return {t.source_type, ""};
}

uint64_t OutlineSource::raw_bytes(size_t, int64_t) const { no_weights(); }
void OutlineSource::fetch(size_t, int64_t, int64_t, RawRows&) const { no_weights(); }
void OutlineSource::decode(const RawRows&, std::span<float>) const { no_weights(); }
void OutlineSource::copy(const RawRows&, DType, std::span<std::byte>) const { no_weights(); }

}  // namespace quern
