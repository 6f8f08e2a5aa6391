#include <nlohmann/json.hpp>

#include "formats/gguf/metadata_text.h"
#include "verify/intact/model_diff.h"

namespace quern {

using nlohmann::ordered_json;

std::string difference_to_json(const ModelSource& a, const ModelSource& b, const ModelDifference& difference) {
  ordered_json keys = ordered_json::array(), tensors = ordered_json::array();
  for (const KeyDifference& key : difference.keys) {
    ordered_json entry = {{"key", key.key}};
    if (key.a != nullptr) entry["a"] = value_text(*key.a);
    if (key.b != nullptr) entry["b"] = value_text(*key.b);
    keys.push_back(std::move(entry));
  }
  for (const TensorDifference& tensor : difference.tensors) {
    ordered_json entry = {{"name", tensor.name}};
    if (tensor.a) entry["type_a"] = name_of(a.tensors()[*tensor.a].source_type);
    if (tensor.b) entry["type_b"] = name_of(b.tensors()[*tensor.b].source_type);
    entry["weights"] = tensor.n_weights;
    entry["different"] = tensor.n_different;
    if (tensor.comparable) {
      entry["relative_error"] = tensor.relative_error;
      entry["largest_change"] = tensor.largest_change;
    }
    tensors.push_back(std::move(entry));
  }
  const ordered_json root = {{"schema", "quern.diff/1"}, {"keys", keys}, {"tensors", tensors}, {"same_tensors", difference.n_same_tensors}};
  return root.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace quern
