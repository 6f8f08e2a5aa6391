#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "formats/arch/config.h"
#include "formats/checkpoint/rows.h"

namespace quern {

// A safetensors checkpoint as a model: the rules of its architecture applied to its stored tensors.
class CheckpointSource final : public ModelSource {
 public:
  // Claims every stored tensor for a rule, companions of its weights included, and reports all that is left over, missing or misshapen in
  // one Error, or the one mistake that explains it all (causes.h). `ignored` entries of the rules are dropped silently, what they mean is
  // in the rules' notes. Bytes are read only where a rule names a tensor that it may duplicate.
  // skip: as formats/model/skip.h has it.
  CheckpointSource(safetensors::Checkpoint checkpoint, const ArchRules& rules, const ModelConfig& config, Metadata metadata,
                   std::vector<std::string> notes = {}, std::span<const std::string> skip = {});

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
  class Claims;

  void apply(const ArchRules& rules, const ModelConfig& config, Claims& claims, Problems& problems);
  void leave_out(std::span<const std::string> skip, Claims& claims);
  bool is_duplicate(const TensorRule& rule);
  void add_tensor(const TensorRule& rule, checkpoint::Assembly assembly);

  safetensors::Checkpoint checkpoint_;
  Metadata metadata_;
  std::vector<std::string> notes_;
  std::vector<LogicalTensor> tensors_;
  std::vector<checkpoint::Assembly> assemblies_;  // one per tensor
  std::vector<SourceFile> files_;
  bool drop_behind_ = false;  // the checkpoint would push everything else out of the page cache
  mutable std::atomic<uint64_t> bytes_read_ = 0;
};

}  // namespace quern
