#include "formats/checkpoint/outline_source.h"

#include "formats/base/error.h"
#include "formats/encodings/registry.h"

namespace quern {
namespace {

[[noreturn]] void no_weights() { throw Error(ErrorKind::kInternal, "the outline of a model has no weights"); }

DType plain_type(const ModelConfig& config) {
  std::string name = config.find_string("dtype").value_or("");
  if (name.empty()) name = config.find_string("torch_dtype").value_or("bfloat16");
  if (name == "float16") return DType::F16;
  return name == "float32" ? DType::F32 : DType::BF16;
}

}  // namespace

OutlineSource::OutlineSource(const ModelConfig& config, const ArchRules& rules, Metadata metadata, std::vector<std::string> notes)
    : metadata_(std::move(metadata)), notes_(std::move(notes)) {
  const DType plain = plain_type(config);
  for (const TensorRule& rule : rules.rules) {
    if (!rule.drop_if_equal_to.empty()) continue;
    LogicalTensor tensor;
    tensor.name = rule.name;
    tensor.shape = rule.shape;
    tensor.role = rule.role;
    tensor.keep = rule.keep;
    tensor.layer = rule.layer;
    if (rule.role == Role::kRoutedExpert && rule.shape.rank() == 3) tensor.n_slices = rule.shape[0];
    encodings::Promise promise{rule.keep == Keep::kInteger ? DType::I32 : DType::F32, {}};
    if (rule.keep != Keep::kInteger && rule.keep != Keep::kF32) promise = encodings::promise(config, tensor, plain);
    tensor.source_type = promise.type;
    tensor.source_bytes = tensor_size_bytes(tensor.source_type, tensor.shape);
    tensors_.push_back(std::move(tensor));
    inexact_.push_back(std::move(promise.inexact));
  }
}

Exactness OutlineSource::exactness(size_t tensor) const {
  if (!inexact_.at(tensor).empty()) return {std::nullopt, inexact_[tensor]};
  return {tensors_[tensor].source_type, {}};
}

uint64_t OutlineSource::raw_bytes(size_t, int64_t) const { no_weights(); }
void OutlineSource::fetch(size_t, int64_t, int64_t, RawRows&) const { no_weights(); }
void OutlineSource::decode(const RawRows&, std::span<float>) const { no_weights(); }
void OutlineSource::copy(const RawRows&, DType, std::span<std::byte>) const { no_weights(); }

}  // namespace quern
