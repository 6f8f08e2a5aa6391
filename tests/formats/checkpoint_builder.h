#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "formats/arch/config.h"
#include "formats/arch/descriptor.h"
#include "formats/base/error.h"
#include "formats/checkpoint/checkpoint_source.h"
#include "formats/types/float_convert.h"
#include "tests/formats/builders.h"

// Checkpoints of random weights in every encoding, each with its weights decoded one element at a time, and the transforms as index
// formulas over whole tensors: what the chunked code under test has to equal.

namespace quern::test {

class CheckpointBuilder {
 public:
  struct Values {
    Shape shape;
    std::vector<float> values;
  };

  CheckpointBuilder& add_float(const std::string& name, DType dtype, const Shape& shape) {
    Bytes bytes;
    std::vector<float> values;
    for (int64_t i = 0; i < shape.n_elements(); ++i) {
      const float value = static_cast<float>(static_cast<int>(random() % 4001) - 2000) / 64.0F;
      values.push_back(append_float(bytes, dtype, value));
    }
    return add(name, dtype, shape, bytes, std::move(values));
  }

  CheckpointBuilder& add_i64(const std::string& name, const Shape& shape, const std::vector<int64_t>& values) {
    file_.add(name, DType::I64, shape, values_to_bytes(values));
    return *this;
  }

  // shape [rows, cols] or [slices, rows, cols]; scales are powers of two unless arbitrary_scales.
  CheckpointBuilder& add_fp8(const std::string& name, const std::string& scale_name, DType scale_type, const Shape& shape,
                             bool arbitrary_scales = false, DType dtype = DType::F8_E4M3) {
    const Grid grid(shape, block_rows, block_cols);
    const std::vector<float> scales = add_scales(scale_name, scale_type, grid.scale_shape(shape), arbitrary_scales);
    Bytes bytes;
    std::vector<float> values;
    for (int64_t i = 0; i < shape.n_elements(); ++i) {
      auto code = static_cast<uint8_t>(random());
      if ((code & 0x7F) >= 0x7C) code = 0x10;  // NaN, and the infinities of e5m2
      bytes.push_back(static_cast<std::byte>(code));
      const float value = dtype == DType::F8_E4M3 ? e4m3_to_f32(code) : e5m2_to_f32(code);
      values.push_back(value * scales[static_cast<size_t>(grid.scale_of(i))]);
    }
    return add(name, dtype, shape, bytes, std::move(values));
  }

  // "X_blocks" with "X_scales" when the name says so, else packed pairs. `scale_type` is F8_E8M0 or U8.
  CheckpointBuilder& add_fp4(const std::string& name, const std::string& scale_name, DType dtype, DType scale_type, const Shape& shape) {
    const Grid grid(shape, 1, 32);
    const std::vector<float> scales = add_scales(scale_name, scale_type, grid.scale_shape(shape), false);
    Bytes bytes;
    std::vector<float> values;
    for (int64_t i = 0; i < shape.n_elements(); i += 2) {
      const auto pair = static_cast<uint8_t>(random());
      bytes.push_back(static_cast<std::byte>(pair));
      const float scale = scales[static_cast<size_t>(grid.scale_of(i))];
      values.push_back(e2m1(pair & 15) * scale);
      values.push_back(e2m1(pair >> 4) * scale);
    }
    std::vector<int64_t> dims(shape.dims().begin(), shape.dims().end());
    if (name.ends_with("_blocks")) {
      dims.back() /= 32;
      dims.push_back(16);
    } else {
      dims.back() /= 2;
    }
    file_.add(name, dtype, Shape(std::span<const int64_t>(dims)), bytes);
    values_[name] = {shape, std::move(values)};
    return *this;
  }

  CheckpointBuilder& add_raw(const std::string& name, DType dtype, const Shape& shape, const Bytes& bytes) {
    file_.add(name, dtype, shape, bytes);
    return *this;
  }

  const Values& values(const std::string& name) const { return values_.at(name); }
  const SafetensorsBuilder& file() const { return file_; }

  safetensors::Checkpoint open() const {
    write_bytes(dir_ / "model.safetensors", file_.file());
    return safetensors::Checkpoint(dir_.path());
  }
  const std::filesystem::path& folder() const { return dir_.path(); }
  ModelConfig config() const {
    const std::string block = std::to_string(block_rows) + ", " + std::to_string(block_cols);
    return ModelConfig::parse(R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [)" + block + "]}}");
  }

  int64_t block_rows = 128;
  int64_t block_cols = 128;

 private:
  // Which scale an element has, for blocks over the last two axes.
  struct Grid {
    Grid(const Shape& shape, int64_t block_rows_, int64_t block_cols_)
        : rows(shape[shape.rank() - 2]), cols(shape.row_length()), block_rows(block_rows_), block_cols(block_cols_) {}

    int64_t scale_rows() const { return (rows + block_rows - 1) / block_rows; }
    int64_t scale_cols() const { return (cols + block_cols - 1) / block_cols; }
    Shape scale_shape(const Shape& shape) const {
      return shape.rank() == 3 ? Shape{shape[0], scale_rows(), scale_cols()} : Shape{scale_rows(), scale_cols()};
    }
    int64_t scale_of(int64_t element) const {
      const int64_t col = element % cols;
      const int64_t row = element / cols % rows;
      const int64_t slice = element / cols / rows;
      return (slice * scale_rows() + row / block_rows) * scale_cols() + col / block_cols;
    }

    int64_t rows, cols, block_rows, block_cols;
  };

  static float e2m1(int code) {
    constexpr float kMagnitudes[] = {0, 0.5F, 1, 1.5F, 2, 3, 4, 6};
    const float magnitude = kMagnitudes[code & 7];
    return (code & 8) != 0 && magnitude != 0 ? -magnitude : magnitude;
  }

  // Returns the value that the stored bits have.
  static float append_float(Bytes& bytes, DType dtype, float value) {
    switch (dtype) {
      case DType::F64:
        append(bytes, values_to_bytes<double>({value}));
        return value;
      case DType::F32:
        append(bytes, values_to_bytes<float>({value}));
        return value;
      case DType::F16:
        append(bytes, values_to_bytes<uint16_t>({f32_to_f16(value)}));
        return f16_to_f32(f32_to_f16(value));
      case DType::BF16:
        append(bytes, values_to_bytes<uint16_t>({f32_to_bf16(value)}));
        return bf16_to_f32(f32_to_bf16(value));
      case DType::F8_E5M2: {
        const auto code = static_cast<uint8_t>(f32_to_f16(value) >> 8);
        bytes.push_back(static_cast<std::byte>(code));
        return e5m2_to_f32(code);
      }
      default:
        throw std::logic_error("not a float type");
    }
  }

  std::vector<float> add_scales(const std::string& name, DType dtype, const Shape& shape, bool arbitrary) {
    Bytes bytes;
    std::vector<float> scales;
    for (int64_t i = 0; i < shape.n_elements(); ++i) {
      const auto exponent = static_cast<uint8_t>(115 + random() % 20);
      if (dtype == DType::F8_E8M0 || dtype == DType::U8) {
        bytes.push_back(static_cast<std::byte>(exponent));
        scales.push_back(e8m0_to_f32(exponent));
      } else {
        const float factor = arbitrary ? 1.0F + static_cast<float>(random() % 127 + 1) / 128.0F : 1.0F;
        scales.push_back(append_float(bytes, dtype, e8m0_to_f32(exponent) * factor));
      }
    }
    file_.add(name, dtype, shape, bytes);
    return scales;
  }

  CheckpointBuilder& add(const std::string& name, DType dtype, const Shape& shape, const Bytes& bytes, std::vector<float> values) {
    file_.add(name, dtype, shape, bytes);
    values_[name] = {shape, std::move(values)};
    return *this;
  }

  uint32_t random() {
    state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<uint32_t>(state_ >> 33);
  }

  TempDir dir_;
  SafetensorsBuilder file_;
  std::map<std::string, Values> values_;
  uint64_t state_ = 1;
};

// The logical tensor of a rule, element by element from the decoded stored tensors.
inline std::vector<float> naive_tensor(const CheckpointBuilder& model, const TensorRule& rule) {
  if (rule.transform == Transform::kGenerated) return rule.generated;
  const std::vector<std::string> names = checkpoint::stored_names(rule);
  std::vector<float> all;
  for (const std::string& name : names) {
    const std::vector<float>& values = model.values(name).values;
    all.insert(all.end(), values.begin(), values.end());
  }
  const Shape& shape = rule.shape;
  const auto at = [&](int64_t i) { return all.at(static_cast<size_t>(i)); };
  std::vector<float> out;
  const int64_t cols = shape.row_length();
  switch (rule.transform) {
    case Transform::kNone:
    case Transform::kStoredStack:
      return all;
    case Transform::kPermuteHeads: {
      const int64_t width = shape.rank() == 1 ? 1 : cols;
      const int64_t half = shape[0] / rule.n_head / 2;
      for (int64_t head = 0; head < rule.n_head; ++head) {
        for (int64_t i = 0; i < half; ++i) {
          for (int64_t part = 0; part < 2; ++part) {
            for (int64_t c = 0; c < width; ++c) out.push_back(at(((head * 2 + part) * half + i) * width + c));
          }
        }
      }
      return out;
    }
    case Transform::kSplitKeyB:
      for (int64_t head = 0; head < rule.n_head; ++head) {
        for (int64_t r = 0; r < shape[1]; ++r) {
          for (int64_t n = 0; n < rule.nope_dim; ++n) {
            out.push_back(at((head * (rule.nope_dim + rule.value_dim) + n) * shape[1] + r));
          }
        }
      }
      return out;
    case Transform::kSplitValueB:
      for (int64_t head = 0; head < rule.n_head; ++head) {
        for (int64_t v = 0; v < rule.value_dim; ++v) {
          for (int64_t c = 0; c < cols; ++c) {
            out.push_back(at((head * (rule.nope_dim + rule.value_dim) + rule.nope_dim + v) * cols + c));
          }
        }
      }
      return out;
    case Transform::kEvenRows:
    case Transform::kOddRows:
    case Transform::kFirstHalfRows:
    case Transform::kSecondHalfRows: {
      const int64_t width = shape.rank() == 2 ? 1 : cols;
      for (int64_t expert = 0; expert < shape[0]; ++expert) {
        for (int64_t row = 0; row < shape[1]; ++row) {
          int64_t from = row;
          if (rule.transform == Transform::kEvenRows) from = 2 * row;
          if (rule.transform == Transform::kOddRows) from = 2 * row + 1;
          if (rule.transform == Transform::kSecondHalfRows) from = shape[1] + row;
          for (int64_t c = 0; c < width; ++c) out.push_back(at((expert * 2 * shape[1] + from) * width + c));
        }
      }
      return out;
    }
    case Transform::kConcatColumns:
      for (int64_t row = 0; row < shape[0]; ++row) {
        for (int64_t c = 0; c < cols; ++c) {
          const int64_t half = cols / 2;
          out.push_back(model.values(names[c < half ? 0 : 1]).values[static_cast<size_t>(row * half + c % half)]);
        }
      }
      return out;
    case Transform::kGenerated:
      break;
  }
  return out;
}

inline TensorRule rule(std::string stored, std::string name, Shape shape, Transform transform = Transform::kNone) {
  TensorRule result;
  result.stored = std::move(stored);
  result.name = std::move(name);
  result.shape = shape;
  result.transform = transform;
  return result;
}

inline CheckpointSource open_source(const CheckpointBuilder& model, const ArchRules& rules) {
  return CheckpointSource(model.open(), rules, model.config(), Metadata());
}

// The message of the Error that `body` throws, empty if there is none.
template <typename Body>
std::string error_of(Body body) {
  try {
    body();
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}

// Rows [first, first + n) through fetch and decode.
inline std::vector<float> decode_chunk(const ModelSource& source, size_t tensor, int64_t first, int64_t n) {
  RawRows raw;
  source.fetch(tensor, first, n, raw);
  std::vector<float> out(static_cast<size_t>(n * source.tensors()[tensor].shape.row_length()));
  source.decode(raw, out);
  return out;
}

}  // namespace quern::test
