#include "verify/intact/model_diff.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <mutex>
#include <string_view>

#include "formats/base/exact_sum.h"
#include "formats/base/parallel.h"

// Tensors are paired by name and compared by what they decode to, so a difference of type alone is told from a difference of weights.
// Weights are compared bit for bit, in chunks of about a million on all threads; each chunk adds its squares in order, and sums of chunks
// are added exactly, so the figures do not depend on who was first. Chunks whose sums are not finite are left out of the relative error,
// which a single NaN would otherwise make meaningless, while the count of weights that differ has them all.

namespace quern {
namespace {

constexpr int64_t kChunkWeights = int64_t{1} << 20;

std::vector<KeyDifference> compare_keys(const Metadata& a, const Metadata& b) {
  std::vector<KeyDifference> differences;
  for (const auto& [key, value] : a.entries()) {
    const MetaValue* other = b.find(key);
    if (other == nullptr || *other != value) differences.push_back({key, &value, other});
  }
  for (const auto& [key, value] : b.entries()) {
    if (a.find(key) == nullptr) differences.push_back({key, nullptr, &value});
  }
  return differences;
}

std::vector<float> rows_of(const ModelSource& source, size_t tensor, int64_t first_row, int64_t n_rows) {
  RawRows raw;
  source.fetch(tensor, first_row, n_rows, raw);
  std::vector<float> weights(static_cast<size_t>(n_rows * source.tensors()[tensor].shape.row_length()));
  source.decode(raw, weights);
  return weights;
}

std::vector<std::byte> integers_of(const ModelSource& source, size_t tensor, int64_t first_row, int64_t n_rows) {
  RawRows raw;
  source.fetch(tensor, first_row, n_rows, raw);
  std::vector<std::byte> bytes(
      static_cast<size_t>(static_cast<uint64_t>(n_rows) * row_size_bytes(DType::I32, source.tensors()[tensor].shape.row_length())));
  source.copy(raw, DType::I32, bytes);
  return bytes;
}

class TensorComparison {
 public:
  TensorComparison(const ModelSource& a, const ModelSource& b, TensorDifference& difference) : a_(a), b_(b), difference_(difference) {}

  void run(Progress& progress) {
    const Shape& shape = a_.tensors()[*difference_.a].shape;
    const int64_t rows = std::max<int64_t>(1, kChunkWeights / std::max<int64_t>(1, shape.row_length()));
    const int64_t n_chunks = (shape.n_rows() + rows - 1) / rows;
    difference_.n_weights = shape.n_elements();
    const bool integers = !difference_.comparable;
    parallel_for(n_chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        throw_if_interrupted();
        const int64_t first = chunk * rows, n = std::min(rows, shape.n_rows() - first);
        integers ? compare_integers(first, n) : compare_rows(first, n);
        progress.advance(static_cast<uint64_t>(n * shape.row_length()));
      }
    });
    const double energy = energy_.value();
    difference_.relative_error = energy > 0 ? std::sqrt(error_.value() / energy) : error_.value() > 0 ? 1 : 0;
  }

 private:
  void compare_rows(int64_t first_row, int64_t n_rows) {
    const std::vector<float> x = rows_of(a_, *difference_.a, first_row, n_rows), y = rows_of(b_, *difference_.b, first_row, n_rows);
    int64_t n_different = 0;
    double energy = 0, error = 0, largest = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double change = static_cast<double>(x[i]) - static_cast<double>(y[i]);
      n_different += std::bit_cast<uint32_t>(x[i]) != std::bit_cast<uint32_t>(y[i]) ? 1 : 0;
      energy += static_cast<double>(x[i]) * static_cast<double>(x[i]);
      error += change * change;
      largest = std::max(largest, std::abs(change));
    }
    const std::lock_guard lock(mutex_);
    if (std::isfinite(energy)) energy_.add(energy);
    if (std::isfinite(error)) error_.add(error);
    difference_.n_different += n_different;
    difference_.largest_change = std::max(difference_.largest_change, largest);
  }

  void compare_integers(int64_t first_row, int64_t n_rows) {
    const std::vector<std::byte> x = integers_of(a_, *difference_.a, first_row, n_rows),
                                 y = integers_of(b_, *difference_.b, first_row, n_rows);
    int64_t n_different = 0;
    for (size_t i = 0; i < x.size(); i += sizeof(int32_t))
      n_different += std::equal(x.begin() + static_cast<ptrdiff_t>(i), x.begin() + static_cast<ptrdiff_t>(i + sizeof(int32_t)),
                                y.begin() + static_cast<ptrdiff_t>(i))
                         ? 0
                         : 1;
    const std::lock_guard lock(mutex_);
    difference_.n_different += n_different;
  }

  const ModelSource& a_;
  const ModelSource& b_;
  TensorDifference& difference_;
  std::mutex mutex_;
  ExactSum energy_, error_;  // of chunks, whose number does not depend on the threads
};

bool is_integer(const LogicalTensor& tensor) { return tensor.keep == Keep::kInteger; }

}  // namespace

ModelDifference compare_models(const ModelSource& a, const ModelSource& b, Progress& progress) {
  ModelDifference result;
  result.keys = compare_keys(a.metadata(), b.metadata());
  std::map<std::string_view, size_t> in_b;
  for (size_t i = 0; i < b.tensors().size(); ++i) in_b[b.tensors()[i].name] = i;
  uint64_t total = 0;
  for (const LogicalTensor& tensor : a.tensors()) total += static_cast<uint64_t>(tensor.shape.n_elements());
  progress.begin("comparing", total);
  for (size_t i = 0; i < a.tensors().size(); ++i) {
    const LogicalTensor& tensor = a.tensors()[i];
    TensorDifference difference;
    difference.name = tensor.name;
    difference.a = i;
    const auto found = in_b.find(tensor.name);
    if (found != in_b.end()) {
      difference.b = found->second;
      const LogicalTensor& other = b.tensors()[found->second];
      in_b.erase(found);
      const bool same_kind = tensor.shape == other.shape && is_integer(tensor) == is_integer(other);
      difference.comparable = same_kind && !is_integer(tensor);
      if (same_kind) TensorComparison(a, b, difference).run(progress);
      if (same_kind && difference.n_different == 0 && tensor.source_type == other.source_type) {
        ++result.n_same_tensors;
        continue;
      }
    }
    result.tensors.push_back(std::move(difference));
  }
  progress.end();
  for (size_t i = 0; i < b.tensors().size(); ++i) {
    if (!in_b.contains(b.tensors()[i].name)) continue;
    TensorDifference difference;
    difference.name = b.tensors()[i].name;
    difference.b = i;
    result.tensors.push_back(std::move(difference));
  }
  return result;
}

}  // namespace quern
