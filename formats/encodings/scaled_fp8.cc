#include <algorithm>
#include <vector>

#include "formats/arch/config.h"
#include "formats/encodings/fp8.h"

// FP8 with one scale per tensor or per output channel (row), as AutoFP8 writes it ("X.weight_scale"), and Mistral in the names of
// DeepSeek ("X.weight_scale_inv" with weight_block_size null). The shape of the scale decides: [], [1], [1, 1] or, for stacks, one per
// slice; [rows] or [rows, 1]. The scales of 8-bit activations beside it say nothing about the weights and are dropped.

namespace quern::encodings {
namespace {

using safetensors::StoredTensor;

constexpr std::array<const char*, 1> kMethods = {"fp8"};
constexpr std::array<Companion, 2> kScales = {{{"_scale", ""}, {"_scale_inv", ""}}};
constexpr std::array<Companion, 4> kActivationScales = {
    {{".input_scale", ".weight"}, {"_input_scale", ""}, {".activation_scale", ".weight"}, {"_activation_scale", ""}}};
constexpr std::array<Companion, 6> kCompanions = {
    {kScales[0], kScales[1], kActivationScales[0], kActivationScales[1], kActivationScales[2], kActivationScales[3]}};

enum class Scope { kTensor, kSlice, kRow, kOther };

// What one scale is for, from the shapes of scales and weights.
Scope scope_of(const Shape& scales, const Shape& weights) {
  if (scales.n_elements() == 1) return Scope::kTensor;
  std::vector<int64_t> outer;
  if (weights.rank() == 3) outer.push_back(weights[0]);
  const auto is = [&](std::initializer_list<int64_t> inner) {
    std::vector<int64_t> dims = outer;
    dims.insert(dims.end(), inner);
    return std::ranges::equal(scales.dims(), dims);
  };
  if (is({matrix_rows(weights)}) || is({matrix_rows(weights), 1})) return Scope::kRow;
  return weights.rank() == 3 && (is({}) || is({1, 1})) ? Scope::kSlice : Scope::kOther;
}

// The scales under the names of AutoFP8, or under DeepSeek's where config.json has no blocks and the shape is not that of blocks.
const StoredTensor* find_scales(const Wanted& wanted) {
  const std::span<const Companion> names(kScales);
  if (const StoredTensor* scales = find_companion(wanted, names.first(1))) return scales;
  if (wanted.config.has("quantization_config.weight_block_size")) return nullptr;
  const StoredTensor* scales = find_companion(wanted, names.last(1));
  return scales != nullptr && scope_of(scales->shape, wanted.stored->shape) != Scope::kOther ? scales : nullptr;
}

// One exporter (GPTQModel) stores the inverse of a scale under the same names and says so here.
void check_config(const ModelConfig& config) {
  const std::string semantics = config.find_string("quantization_config.weight_scale_semantics").value_or("");
  if (semantics != "inverse") return;
  throw Error(ErrorKind::kUnsupported, "config.json: weight_scale_semantics is 'inverse', only scales that multiply are supported");
}

bool claims(const Wanted& wanted) { return wanted.stored != nullptr && is_fp8(wanted.stored->dtype) && find_scales(wanted) != nullptr; }

std::optional<EncodedTensor> find(const Wanted& wanted, const Shape& shape, Problems& problems) {
  const StoredTensor& scales = *find_scales(wanted);
  if (wanted.stored->shape != shape) return report_shape(*wanted.stored, shape, problems);
  if (!is_scale_type(scales.dtype)) {
    problems.add(ErrorKind::kFormat, in_quotes(scales.name) + " is " + std::string(name_of(scales.dtype)) + ", not a scale type");
    return std::nullopt;
  }
  const Scope scope = scope_of(scales.shape, shape);
  if (scope == Scope::kOther) {
    problems.add(ErrorKind::kFormat, in_quotes(scales.name) + " has shape " + scales.shape.to_string() +
                                         ", expected one scale per tensor or per row of " + shape.to_string());
    return std::nullopt;
  }
  EncodedTensor tensor = row_by_row(*wanted.stored, shape);
  const int64_t unit_rows = scope == Scope::kRow ? 1 : tensor.rows;
  tensor.block_cols = tensor.cols;
  tensor.add({.tensor = &scales,
              .unit_rows = unit_rows,
              .unit_bytes = row_size_bytes(scales.dtype, 1),
              .n_units = tensor.rows / unit_rows,
              .shared = scope == Scope::kTensor});
  for (const Companion& name : kActivationScales) {
    if (const StoredTensor* found = find_companion(wanted, {&name, 1})) tensor.dropped.push_back(found);
  }
  return tensor;
}

}  // namespace

extern const Encoding kScaledFp8;
const Encoding kScaledFp8 = {.methods = kMethods,
                             .companions = kCompanions,
                             .check_config = check_config,
                             .promise = fp8_promise,
                             .claims = claims,
                             .find = find,
                             .source_type = fp8_source_type,
                             .can_copy = fp8_can_copy,
                             .exactness = fp8_exactness,
                             .decode = fp8_decode,
                             .copy = nullptr};

}  // namespace quern::encodings
