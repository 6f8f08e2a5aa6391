#include "formats/model/model_kind.h"

#include <algorithm>

#include "formats/base/error.h"

namespace quern {
namespace {

std::string text_of(const Metadata& metadata, std::string_view key) {
  const MetaValue* value = metadata.find(key);
  const auto* text = value == nullptr ? nullptr : std::get_if<std::string>(value);
  return text == nullptr ? "" : *text;
}

// " of NAME", where an adapter says whose it is.
std::string base_of(const Metadata& metadata) {
  for (const char* key : {"general.base_model.0.repo_url", "general.base_model.0.name"}) {
    if (const std::string base = text_of(metadata, key); !base.empty()) return " of " + printable(base);
  }
  return "";
}

bool any_name(const ModelSource& source, std::string_view ending) {
  return std::ranges::any_of(source.tensors(), [=](const LogicalTensor& tensor) { return tensor.name.ends_with(ending); });
}

}  // namespace

std::string why_no_model(const ModelSource& source) {
  const Metadata& metadata = source.metadata();
  const std::string type = text_of(metadata, "general.type"), arch = text_of(metadata, "general.architecture");
  if (type == "adapter" || any_name(source, ".lora_a"))
    return "is an adapter (LoRA)" + base_of(metadata) + ", no model: merge it into its base model first, or load it beside that";
  if (type == "mmproj" || arch == "clip")
    return "is a projector for images or sound (mmproj), no language model: it is loaded as it is, beside the model";
  if (type == "imatrix" || any_name(source, ".in_sum2")) return "is an importance matrix, no model: --imatrix takes it";
  if (type == "controlvector" || arch == "controlvector") return "is a control vector, no model: it is loaded beside the model";
  if (source.tensors().empty() && metadata.find("tokenizer.ggml.tokens") != nullptr)
    return "is a vocabulary without weights, no model: it is good for 'quern tokenize' only";
  return "";
}

void require_model(const ModelSource& source) {
  const std::string why = why_no_model(source);
  if (!why.empty()) throw Error(ErrorKind::kUsage, why).file(source.files().empty() ? "" : source.files().front().path.string());
}

}  // namespace quern
