#pragma once

#include <atomic>
#include <vector>

#include "formats/gguf/gguf.h"
#include "formats/model/model_source.h"

namespace quern {

// A GGUF file, or all shards of a split one, as a model. Metadata is that of the first shard without the split.* keys.
class GgufSource final : public ModelSource {
 public:
  explicit GgufSource(gguf::File file);

  const Metadata& metadata() const noexcept override { return metadata_; }
  std::span<const LogicalTensor> tensors() const noexcept override { return tensors_; }
  std::span<const SourceFile> files() const noexcept override { return files_; }
  std::span<const std::string> notes() const noexcept override { return notes_; }

  Exactness exactness(size_t tensor) const override;
  uint64_t raw_bytes(size_t tensor, int64_t n_rows) const override;
  void fetch(size_t tensor, int64_t first_row, int64_t n_rows, RawRows& raw) const override;
  void decode(const RawRows& raw, std::span<float> out) const override;
  bool can_copy(size_t tensor, DType type) const override;
  void copy(const RawRows& raw, DType type, std::span<std::byte> out) const override;
  uint64_t bytes_read() const noexcept override { return bytes_read_; }

 private:
  uint64_t row_bytes(size_t tensor) const;
  [[noreturn]] void refuse_row_of(const RawRows& raw, int64_t weight) const;  // weight counts from the start of raw

  gguf::File file_;
  Metadata metadata_;
  std::vector<LogicalTensor> tensors_;
  std::vector<SourceFile> files_;
  std::vector<std::string> notes_;
  mutable std::atomic<uint64_t> bytes_read_ = 0;
};

}  // namespace quern
