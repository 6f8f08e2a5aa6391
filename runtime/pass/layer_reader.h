#pragma once

#include <memory>
#include <string>
#include <vector>

#include "formats/base/progress.h"
#include "runtime/blocks/block.h"

namespace quern {

// Reads the blocks of a model for a pass: knows which tensors each has, checks them, and fetches them ahead of their use. Requests are
// taken in the order in which they were made.
class LayerReader {
 public:
  // index: outlives the reader. Checks that every block is complete, of the expected shapes and known in full: a block tensor that no
  // rule of the runtime uses is an error, because ignoring it would give wrong numbers silently. All problems are reported together.
  LayerReader(const Hparams& hparams, const TensorIndex& index);

  uint64_t layer_bytes(int64_t layer) const;   // stored bytes of a block, experts included
  uint64_t expert_bytes(int64_t layer) const;  // of one of its experts

  void start(uint64_t prefetch_bytes);              // allows requests; the first budget stays
  void abandon() noexcept { prefetcher_.reset(); }  // with the tiles that nobody will take, until the next start()

  void request_block(int64_t layer);
  Block take_block(int64_t layer);
  void request_expert(int64_t layer, int64_t expert);
  std::vector<StoredMatrix> take_expert(int64_t layer, int64_t expert);  // gate, up, down
  StoredMatrix read(const LogicalTensor& tensor);                        // requests and takes all rows of a tensor

  // Advances `progress` by the stored bytes of what is taken; nullptr: nobody.
  void report_to(Progress* progress) noexcept { progress_ = progress; }
  uint64_t bytes_taken() const noexcept { return bytes_taken_; }

 private:
  WeightList::Stored stored_in(int64_t layer) const;
  void check_layer(int64_t layer, std::vector<std::string>& problems) const;
  void check_tensors() const;
  StoredMatrix take(const LogicalTensor& tensor, int64_t first_row, int64_t n_rows);

  const Hparams& hparams_;
  const TensorIndex& index_;
  std::unique_ptr<Prefetcher> prefetcher_;
  Progress* progress_ = nullptr;
  uint64_t bytes_taken_ = 0;
};

}  // namespace quern
