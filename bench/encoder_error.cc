// Compares our encoders with a file that another encoder made from the same weights.
//
//   quern_encoder_error SOURCE.gguf REFERENCE.gguf... [--importance IMATRIX.gguf] [--json]
//
// SOURCE holds F32, F16 or BF16 tensors; each REFERENCE is a quantization of it (all tensors of one type: llama-quantize --pure). Every
// reference tensor of a block type that we encode is encoded again from the source, and sum h (x - y)^2 is added up per type
// for both; h is 1, or the mean squared activation of an importance file as llama-imatrix writes it (tensors without an entry
// count with h = 1, and llama-quantize treats them so). "worst" is the largest ratio of any tensor, stacked experts taken one by one.

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "formats/base/error.h"
#include "formats/gguf/gguf.h"
#include "formats/types/decode.h"
#include "quantize/plain/encode.h"

namespace quern {
namespace {

struct Totals {
  double reference = 0.0;
  double ours = 0.0;
  double seconds = 0.0;  // processor time of our encoder
  int64_t weights = 0;
  int64_t slices = 0;
  double worst_ratio = 0.0;
  std::string worst_name;
};

// Rows of one expert of a stacked tensor, or the whole of any other.
struct Slice {
  int64_t first_row;
  int64_t n_rows;
};

std::vector<Slice> slices_of(const Shape& shape) {
  if (shape.rank() < 3) return {{0, shape.n_rows()}};
  const int64_t n_slices = shape[0];
  const int64_t n_rows = shape.n_rows() / n_slices;
  std::vector<Slice> slices;
  for (int64_t i = 0; i < n_slices; ++i) slices.push_back({i * n_rows, n_rows});
  return slices;
}

std::vector<std::byte> read_rows(const gguf::File& file, const gguf::StoredTensor& tensor, const Slice& slice) {
  const uint64_t row_bytes = row_size_bytes(tensor.dtype, tensor.shape.row_length());
  std::vector<std::byte> bytes(static_cast<uint64_t>(slice.n_rows) * row_bytes);
  file.read(tensor, static_cast<uint64_t>(slice.first_row) * row_bytes, bytes);
  return bytes;
}

std::vector<float> decoded(DType dtype, const std::vector<std::byte>& bytes) {
  const DTypeTraits& type = traits(dtype);
  std::vector<float> values(bytes.size() / static_cast<size_t>(type.block_bytes) * static_cast<size_t>(type.block_weights));
  decode_blocks(dtype, bytes, values);
  return values;
}

std::vector<float> read_floats(const gguf::File& file, const gguf::StoredTensor& tensor, const Slice& slice) {
  return decoded(tensor.dtype, read_rows(file, tensor, slice));
}

// Mean squared activation per column of slice `index`; empty when the file has none.
std::vector<float> importance_of(const gguf::File& imatrix, const std::string& name, int64_t index, int64_t n_cols) {
  const gguf::StoredTensor* sums = imatrix.find(name + ".in_sum2");
  const gguf::StoredTensor* counts = imatrix.find(name + ".counts");
  if (sums == nullptr || counts == nullptr || sums->shape.row_length() != n_cols || index >= sums->shape.n_rows()) return {};
  std::vector<float> h = read_floats(imatrix, *sums, {index, 1});
  const std::vector<float> all_counts = read_floats(imatrix, *counts, {0, counts->shape.n_rows()});
  const float count = static_cast<size_t>(index) < all_counts.size() ? all_counts[static_cast<size_t>(index)] : 0.0f;
  for (float& value : h) value = count > 0.0f ? value / count : 1.0f;
  return h;
}

double squared_error(const std::vector<float>& x, const std::vector<float>& y, const std::vector<float>& h) {
  double sum = 0.0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double rest = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    sum += rest * rest * (h.empty() ? 1.0 : static_cast<double>(h[i % h.size()]));
  }
  return sum;
}

void compare_slice(const std::vector<float>& x, const std::vector<std::byte>& reference, DType dtype, int64_t n_cols,
                   const std::vector<float>& h, const std::string& name, Totals& totals) {
  std::vector<std::byte> blocks(reference.size());
  const std::clock_t start = std::clock();  // processor time: other work on the machine does not count
  encode_rows(dtype, x, static_cast<int64_t>(x.size()) / n_cols, n_cols, h, blocks);
  totals.seconds += static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  const double ours = squared_error(x, decoded(dtype, blocks), h);
  const double theirs = squared_error(x, decoded(dtype, reference), h);
  totals.ours += ours;
  totals.reference += theirs;
  totals.weights += static_cast<int64_t>(x.size());
  ++totals.slices;
  if (ours == 0.0 && theirs == 0.0) return;  // both exact: no ratio
  const double ratio = theirs > 0.0 ? ours / theirs : std::numeric_limits<double>::infinity();
  if (ratio > totals.worst_ratio) {
    totals.worst_ratio = ratio;
    totals.worst_name = name;
  }
}

void compare_file(const gguf::File& source, const gguf::File& reference, const gguf::File* imatrix, std::map<DType, Totals>& totals) {
  for (const gguf::StoredTensor& tensor : reference.tensors()) {
    if (traits(tensor.dtype).block_weights == 1 || !has_encoder(tensor.dtype)) continue;
    const gguf::StoredTensor* original = source.find(tensor.name);
    if (original == nullptr || !(original->shape == tensor.shape) || original->dtype == tensor.dtype) {
      throw Error(ErrorKind::kFormat, "the source has no such tensor in a float type").tensor(tensor.name);
    }
    const int64_t n_cols = tensor.shape.row_length();
    const std::vector<Slice> slices = slices_of(tensor.shape);
    for (size_t i = 0; i < slices.size(); ++i) {
      std::vector<float> h;
      if (imatrix != nullptr) h = importance_of(*imatrix, tensor.name, static_cast<int64_t>(i), n_cols);
      const std::string name = slices.size() == 1 ? tensor.name : tensor.name + "[" + std::to_string(i) + "]";
      compare_slice(read_floats(source, *original, slices[i]), read_rows(reference, tensor, slices[i]), tensor.dtype, n_cols, h, name,
                    totals[tensor.dtype]);
    }
  }
}

void print_markdown(const std::map<DType, Totals>& totals) {
  std::printf("| type | tensors | reference error | our error | ratio | worst ratio | M weights/s |\n|---|---|---|---|---|---|---|\n");
  for (const auto& [dtype, t] : totals) {
    std::printf("| %s | %lld | %.6g | %.6g | %.4f | %.4f (%s) | %.1f |\n", std::string(name_of(dtype)).c_str(),
                static_cast<long long>(t.slices), t.reference, t.ours, t.ours / t.reference, t.worst_ratio, t.worst_name.c_str(),
                static_cast<double>(t.weights) / t.seconds / 1e6);
  }
}

void print_json(const std::map<DType, Totals>& totals) {
  nlohmann::ordered_json types = nlohmann::ordered_json::array();
  for (const auto& [dtype, t] : totals) {
    types.push_back({{"type", name_of(dtype)},
                     {"encoder_revision", encoder_revision(dtype)},
                     {"tensors", t.slices},
                     {"weights", t.weights},
                     {"reference_error", t.reference},
                     {"our_error", t.ours},
                     {"ratio", t.ours / t.reference},
                     {"worst_ratio", t.worst_ratio},
                     {"worst_tensor", t.worst_name},
                     {"weights_per_second", static_cast<double>(t.weights) / t.seconds}});
  }
  const nlohmann::ordered_json report = {{"schema", "quern.encoder_error/1"}, {"types", types}};
  std::printf("%s\n", report.dump(2).c_str());
}

int run(const std::vector<std::string>& arguments) {
  std::vector<std::string> files;
  std::optional<gguf::File> imatrix;
  bool json = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--json") {
      json = true;
    } else if (arguments[i] == "--importance" && i + 1 < arguments.size()) {
      imatrix.emplace(arguments[++i]);
    } else {
      files.push_back(arguments[i]);
    }
  }
  if (files.size() < 2) {
    throw Error(ErrorKind::kUsage, "usage: quern_encoder_error SOURCE.gguf REFERENCE.gguf... [--importance IMATRIX.gguf] [--json]");
  }
  const gguf::File source(files[0]);
  std::map<DType, Totals> totals;
  for (size_t i = 1; i < files.size(); ++i) compare_file(source, gguf::File(files[i]), imatrix ? &*imatrix : nullptr, totals);
  json ? print_json(totals) : print_markdown(totals);
  const bool worse = std::ranges::any_of(totals, [](const auto& entry) { return entry.second.ours > entry.second.reference; });
  return worse ? 1 : 0;
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  try {
    return quern::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "quern_encoder_error: %s\n", error.what());
    return 2;
  }
}
