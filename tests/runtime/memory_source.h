#pragma once

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "formats/base/error.h"
#include "formats/model/model_source.h"

namespace quern {

// A model made of floats in memory, for tests: every tensor is F32 (expert tables I32).
class MemorySource final : public ModelSource {
 public:
  Metadata& metadata() noexcept { return metadata_; }
  const Metadata& metadata() const noexcept override { return metadata_; }
  std::span<const LogicalTensor> tensors() const noexcept override { return tensors_; }
  std::span<const SourceFile> files() const noexcept override { return {}; }
  std::span<const std::string> notes() const noexcept override { return {}; }
  Exactness exactness(size_t) const override { return {DType::F32, {}}; }

  void add(std::string name, Shape shape, std::vector<float> values) {
    QUERN_CHECK(static_cast<int64_t>(values.size()) == shape.n_elements());
    LogicalTensor tensor;
    tensor.name = std::move(name);
    tensor.shape = shape;
    tensor.n_slices = shape.rank() == 3 ? shape[0] : 1;
    tensor.source_bytes = values.size() * sizeof(float);
    tensors_.push_back(std::move(tensor));
    values_.push_back(std::move(values));
  }
  std::vector<float>& values(std::string_view name) {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (tensors_[i].name == name) return values_[i];
    }
    throw Error(ErrorKind::kInternal, "no such tensor").tensor(name);
  }

  uint64_t raw_bytes(size_t tensor, int64_t n_rows) const override {
    return static_cast<uint64_t>(n_rows * tensors_[tensor].shape.row_length()) * sizeof(float);
  }
  void fetch(size_t tensor, int64_t first_row, int64_t n_rows, RawRows& raw) const override {
    raw.tensor = tensor;
    raw.first_row = first_row;
    raw.n_rows = n_rows;
    const auto width = static_cast<size_t>(tensors_[tensor].shape.row_length());
    raw.bytes.resize(static_cast<size_t>(n_rows) * width * sizeof(float));
    std::memcpy(raw.bytes.data(), values_[tensor].data() + static_cast<size_t>(first_row) * width, raw.bytes.size());
  }
  void decode(const RawRows& raw, std::span<float> out) const override { std::memcpy(out.data(), raw.bytes.data(), raw.bytes.size()); }
  bool can_copy(size_t, DType) const override { return true; }
  void copy(const RawRows& raw, DType, std::span<std::byte> out) const override {
    for (size_t i = 0; i < out.size() / 4; ++i) {
      float value;
      std::memcpy(&value, raw.bytes.data() + 4 * i, 4);
      const auto integer = static_cast<int32_t>(value);
      std::memcpy(out.data() + 4 * i, &integer, 4);
    }
  }
  uint64_t bytes_read() const noexcept override { return 0; }

 private:
  Metadata metadata_;
  std::vector<LogicalTensor> tensors_;
  std::vector<std::vector<float>> values_;
};

}  // namespace quern
