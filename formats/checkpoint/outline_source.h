#pragma once

#include <string>
#include <vector>

#include "formats/arch/config.h"
#include "formats/arch/descriptor.h"
#include "formats/model/model_source.h"

namespace quern {

// The tensors that an architecture's rules say a model has, with the types that its config.json says they are stored in: what an encoding
// promises (FP4 experts become MXFP4, FP8 is exact where scale_fmt says that scales are powers of two), everything else as torch_dtype
// names it. It has no weights: reading them throws kInternal.
class OutlineSource final : public ModelSource {
 public:
  OutlineSource(const ModelConfig& config, const ArchRules& rules, Metadata metadata, std::vector<std::string> notes);

  const Metadata& metadata() const noexcept override { return metadata_; }
  std::span<const LogicalTensor> tensors() const noexcept override { return tensors_; }
  std::span<const SourceFile> files() const noexcept override { return {}; }
  std::span<const std::string> notes() const noexcept override { return notes_; }

  Exactness exactness(size_t tensor) const override;
  uint64_t raw_bytes(size_t tensor, int64_t n_rows) const override;
  void fetch(size_t tensor, int64_t first_row, int64_t n_rows, RawRows& raw) const override;
  void decode(const RawRows& raw, std::span<float> out) const override;
  bool can_copy(size_t tensor, DType type) const override { return tensors_.at(tensor).source_type == type; }
  void copy(const RawRows& raw, DType type, std::span<std::byte> out) const override;
  uint64_t bytes_read() const noexcept override { return 0; }

 private:
  Metadata metadata_;
  std::vector<std::string> notes_;
  std::vector<LogicalTensor> tensors_;
  std::vector<std::string> inexact_;  // of each tensor: why no type holds every value, empty if source_type does
};

}  // namespace quern
