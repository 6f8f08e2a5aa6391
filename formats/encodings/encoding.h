#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/base/bytes.h"
#include "formats/base/problems.h"
#include "formats/model/model_source.h"
#include "formats/safetensors/safetensors.h"
#include "formats/types/float_convert.h"

namespace quern {

class ModelConfig;

// How checkpoints write weights. Each encoding is one file of this folder and one row of registry.cc; nobody else asks which it is, or
// for the quant_method of a config.json.
namespace encodings {

struct Encoding;

// The bytes of one stored tensor that belong to the rows of a matrix of weights: codes, scales, zero points, group indices, tables.
//
// `unit_rows` rows of weights share one unit of `unit_bytes` bytes: 1 for codes that stand row by row, 128 for the scales of blocks of
// 128 rows, all rows for one scale per tensor, 8 for zero points of which a word has eight. Units follow one another, n_units to a
// stripe, and n_stripes stripes to a slice. Tensors that are stored row by row have one stripe; where the file holds the transposed
// matrix (GPTQ), every stored row is a stripe, and a run of our rows is a column of the file.
struct Plane {
  const safetensors::StoredTensor* tensor = nullptr;
  int64_t unit_rows = 1;
  uint64_t unit_bytes = 0;
  int64_t n_units = 0;
  int64_t n_stripes = 1;
  bool shared = false;  // one slice of it serves all slices of the weights

  int64_t first_unit(int64_t first_row) const noexcept { return first_row / unit_rows; }
  // Units that the rows [first_row, first_row + n_rows) of one slice need, in each stripe.
  int64_t units_of(int64_t first_row, int64_t n_rows) const noexcept {
    return (first_row + n_rows + unit_rows - 1) / unit_rows - first_unit(first_row);
  }
  uint64_t bytes_of(int64_t first_row, int64_t n_rows) const noexcept {
    return static_cast<uint64_t>(n_stripes * units_of(first_row, n_rows)) * unit_bytes;
  }
};

// Codes, scales, zero points, group indices, a scale of the scales.
inline constexpr size_t kMaxPlanes = 5;

// A stored tensor as a stack of matrices of weights, with everything that its values need.
struct EncodedTensor {
  const Encoding* encoding = nullptr;
  std::array<Plane, kMaxPlanes> plane_array{};
  size_t n_planes = 0;  // the first has the codes
  int64_t n_slices = 1;
  int64_t rows = 1;        // of one slice
  int64_t cols = 1;        // weights per row
  int64_t block_cols = 1;  // columns that share a scale; the last block of a row may be cut off
  int64_t tile_rows = 1;   // chunks of rows that start and end at multiples of this read every stored byte once
  std::vector<const safetensors::StoredTensor*> dropped;  // companions that say nothing about the weights, as scales of activations

  std::span<const Plane> planes() const noexcept { return {plane_array.data(), n_planes}; }
  const Plane& codes() const noexcept { return plane_array[0]; }
  const Plane& scales() const noexcept { return plane_array[1]; }
  void add(const Plane& plane);
};

// The fetched planes of the rows [first_row, first_row + n_rows) of one slice. Of a plane it has the units that these rows need, stripe
// after stripe. Does not own the bytes.
struct Tile {
  int64_t first_row = 0;
  int64_t n_rows = 0;
  std::array<const std::byte*, kMaxPlanes> planes{};

  // The unit of stripe `stripe` that `row` belongs to; row counts in the slice.
  const std::byte* unit(const EncodedTensor& tensor, size_t plane, int64_t row, int64_t stripe = 0) const noexcept {
    const Plane& p = tensor.plane_array[plane];
    int64_t at = p.first_unit(row) - p.first_unit(first_row);
    if (stripe != 0) at += stripe * p.units_of(first_row, n_rows);
    return planes[plane] + static_cast<uint64_t>(at) * p.unit_bytes;
  }
};

// What is wrong with a row that cannot be copied.
struct BadRow {
  int64_t row = 0;             // of the slice
  const char* what = nullptr;  // "a NaN or infinite weight"
};

inline constexpr const char* kNonfinite = "a NaN or infinite weight";

// A weight tensor that a rule asks for.
struct Wanted {
  const safetensors::Checkpoint& checkpoint;
  const ModelConfig& config;
  std::string_view name;                    // as the rule has it: "model.layers.0.mlp.up_proj.weight"
  const safetensors::StoredTensor* stored;  // the tensor of that very name, nullptr if there is none
};

// What config.json alone promises about a tensor.
struct Promise {
  DType type;           // GGUF type nearest to what will be stored
  std::string inexact;  // why no GGUF type holds every value, empty if `type` does
};

// The name of a companion and that of the weights it belongs to: "X.weight_scale_inv" and "X.weight" differ in the endings
// "_scale_inv" and "".
struct Companion {
  std::string_view ending;
  std::string_view weights_ending;
};

// One row of the registry. All functions are pure and thread-safe except for reading the checkpoint; a tensor that they get was made by
// the row's own find.
struct Encoding {
  std::span<const char* const> methods;  // spellings of quantization_config.quant_method that mean this one
  std::span<const Companion> companions;

  // Throws kFormat or kUnsupported for a config.json whose numbers this encoding cannot use; nullptr if it reads none.
  void (*check_config)(const ModelConfig& config);

  // The type of `tensor`, of which role, keep, layer and shape are known, in a checkpoint of which only config.json is at hand. `plain`
  // is the type of weights that are not encoded. Empty if the config does not speak of this encoding or not of this tensor.
  std::optional<Promise> (*promise)(const ModelConfig& config, const LogicalTensor& tensor, DType plain);

  // Whether the checkpoint has the tensor in this encoding, from names, types and shapes.
  bool (*claims)(const Wanted& wanted);

  // Pairs the codes with their companions; `shape` (rank 1 to 3; outermost of three is the slice) is that of the weights. Everything
  // that is wrong goes to `problems`, and then there is no result. Sets all of EncodedTensor but `encoding`.
  std::optional<EncodedTensor> (*find)(const Wanted& wanted, const Shape& shape, Problems& problems);

  // GGUF type nearest to what is stored.
  DType (*source_type)(const EncodedTensor& tensor);

  // Whether `copy` can write source_type, and how exactly the values can be kept (ModelSource::exactness). Both may read scales, never
  // codes, and are asked once per tensor and plan.
  bool (*can_copy)(const safetensors::Checkpoint& checkpoint, const EncodedTensor& tensor);
  Exactness (*exactness)(const safetensors::Checkpoint& checkpoint, const EncodedTensor& tensor);

  // Decodes rows [first_row, first_row + n_rows), which the tile has, to cols floats each, of which row r is at
  // out + (r - first_row) * out_stride. NaN codes and scales become NaN or infinities. Not for integer tables.
  void (*decode)(const EncodedTensor& tensor, const Tile& tile, int64_t first_row, int64_t n_rows, float* out, int64_t out_stride);

  // Writes these rows as source_type, row r at out + (r - first_row) * out_stride_bytes. Stops at the first row that has no such form
  // or is not finite, and returns it; `what` is nullptr when all went well. nullptr where can_copy is never true.
  BadRow (*copy)(const EncodedTensor& tensor, const Tile& tile, int64_t first_row, int64_t n_rows, std::byte* out,
                 uint64_t out_stride_bytes);
};

// --- What encodings are made of ---

// The name with another ending; empty if it does not end so.
std::string with_ending(std::string_view name, std::string_view ending, std::string_view by);

// The stored companion of the weights under the first of these names that exists, nullptr if there is none.
const safetensors::StoredTensor* find_companion(const Wanted& wanted, std::span<const Companion> names);

// Where DeepSeek and those who follow it keep the scales of blocks: V3 "X_scale_inv" (it multiplies, whatever its name says), V4
// "X.scale" for "X.weight".
inline constexpr std::array<Companion, 2> kBlockScales = {{{"_scale_inv", ""}, {".scale", ".weight"}}};

// Rows of a matrix, or of each matrix of a stack; a vector is one row.
int64_t matrix_rows(const Shape& shape) noexcept;
// The same outer dimensions with other rows and columns.
Shape with_matrix(const Shape& shape, int64_t rows, int64_t cols);

// Slices, rows and columns of `shape`, and the codes as the first plane: row by row in the bytes of `stored`.
EncodedTensor row_by_row(const safetensors::StoredTensor& stored, const Shape& shape);

// Reports that a stored tensor should have another shape.
std::nullopt_t report_shape(const safetensors::StoredTensor& stored, const Shape& expected, Problems& problems);

// Adds the plane of scales with one scale per block of block_rows x block_cols weights, blocks at the right and bottom edge cut off,
// after checking their type (F32 F16 BF16, or F8_E8M0 and U8, which both are e8m0) and shape.
std::optional<EncodedTensor> with_block_scales(EncodedTensor tensor, const Shape& shape, const safetensors::StoredTensor& scales,
                                               int64_t block_rows, int64_t block_cols, Problems& problems);

bool is_scale_type(DType dtype) noexcept;
bool is_e8m0(DType dtype) noexcept;

// The value of scale number `index`. Inline: decoders ask for one scale per 32 weights.
inline float scale_value(DType dtype, const std::byte* scales, int64_t index) noexcept {
  switch (dtype) {
    case DType::F32:
      return load_le<float>(scales + index * 4);
    case DType::F16:
      return f16_to_f32(load_le<uint16_t>(scales + index * 2));
    case DType::BF16:
      return bf16_to_f32(load_le<uint16_t>(scales + index * 2));
    default:
      return e8m0_to_f32(static_cast<uint8_t>(scales[index]));
  }
}

}  // namespace encodings
}  // namespace quern
