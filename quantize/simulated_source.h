#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <tuple>
#include <vector>

#include "formats/model/model_source.h"
#include "quantize/tensor_encoder.h"

namespace quern {

// Blocks that were encoded, kept for the next simulation that wants the same rows in the same type, as long as there is room.
// Thread-safe.
class BlockCache {
 public:
  explicit BlockCache(uint64_t budget_bytes) : budget_bytes_(budget_bytes) {}

  struct Key {
    size_t tensor = 0;
    DType type = DType::F32;
    int64_t first_row = 0;
    int64_t n_rows = 0;
    auto operator<=>(const Key&) const = default;
  };
  bool find(const Key& key, std::vector<std::byte>& blocks) const;
  void add(const Key& key, std::span<const std::byte> blocks);

 private:
  const uint64_t budget_bytes_;
  mutable std::mutex mutex_;
  uint64_t used_bytes_ = 0;
  std::map<Key, std::vector<std::byte>> blocks_;
};

// The file that would be written, without writing it: a model whose tensors have other types than they are stored in. fetch() reads
// the stored rows of the original, encodes them and hands out the blocks, so that from there on everything is as with the real file:
// decoded floats, sizes, memory. Encoding is split over all threads.
class SimulatedSource final : public ModelSource {
 public:
  // base, encoder and cache (may be nullptr) outlive the source. types: one per tensor of base; empty: as it is stored.
  SimulatedSource(const ModelSource& base, std::span<const std::optional<DType>> types, const TensorEncoder& encoder, BlockCache* cache);
  SimulatedSource(const ModelSource& base, std::span<const DType> types, const TensorEncoder& encoder, BlockCache* cache)
      : SimulatedSource(base, std::vector<std::optional<DType>>(types.begin(), types.end()), encoder, cache) {}

  const Metadata& metadata() const noexcept override { return base_.metadata(); }
  std::span<const LogicalTensor> tensors() const noexcept override { return tensors_; }
  std::span<const SourceFile> files() const noexcept override { return base_.files(); }
  std::span<const std::string> notes() const noexcept override { return base_.notes(); }
  Exactness exactness(size_t tensor) const override;
  uint64_t raw_bytes(size_t tensor, int64_t n_rows) const override;
  void fetch(size_t tensor, int64_t first_row, int64_t n_rows, RawRows& raw) const override;
  void decode(const RawRows& raw, std::span<float> out) const override;
  bool can_copy(size_t tensor, DType type) const override;
  void copy(const RawRows& raw, DType type, std::span<std::byte> out) const override;
  uint64_t bytes_read() const noexcept override { return base_.bytes_read(); }

 private:
  bool encoded(size_t tensor) const noexcept { return encoded_[tensor]; }

  const ModelSource& base_;
  const TensorEncoder& encoder_;
  BlockCache* cache_;
  std::vector<LogicalTensor> tensors_;
  std::vector<bool> encoded_;  // the others keep every value and are read as they are stored
};

}  // namespace quern
