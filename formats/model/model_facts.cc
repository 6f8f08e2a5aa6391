#include "formats/model/model_facts.h"

namespace quern {

uint64_t size_on_disk(const ModelSource& source) {
  uint64_t sum = 0;
  for (const SourceFile& file : source.files()) sum += file.size_bytes;
  return sum;
}

double bits_per_weight(const ModelSource& source) {
  double bits = 0.0, weights = 0.0;
  for (const LogicalTensor& tensor : source.tensors()) {
    bits += 8.0 * static_cast<double>(tensor.source_bytes);
    weights += static_cast<double>(tensor.shape.n_elements());
  }
  return bits / weights;
}

std::string shown_name(const std::filesystem::path& path) {
  const std::filesystem::path name = path.filename();
  return name.empty() || name == "." || name == ".." ? std::filesystem::weakly_canonical(path).filename().string() : name.string();
}

}  // namespace quern
