#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "formats/model/model_source.h"

namespace quern {

// Names of a source's tensors, looked up once.
class TensorIndex {
 public:
  explicit TensorIndex(const ModelSource& source);

  const ModelSource& source() const noexcept { return *source_; }
  const LogicalTensor* find(std::string_view name) const noexcept;
  // Throws kFormat "missing" / "shape [a, b], expected [c, d]" naming the tensor.
  const LogicalTensor& get(std::string_view name, const Shape& shape) const;
  size_t number(const LogicalTensor& tensor) const noexcept { return static_cast<size_t>(&tensor - source_->tensors().data()); }

 private:
  const ModelSource* source_;
  std::map<std::string, size_t, std::less<>> by_name_;
};

// Rows that are fetched and decoded together.
struct RowTile {
  size_t tensor = 0;
  int64_t first_row = 0;
  int64_t n_rows = 0;
};

// Cuts rows into tiles of about 2^18 weights that respect the tensor's row alignment: a multiple of 96 rows where that is possible,
// which suits the blocking of the products, and several tiles per thread where there are enough rows (threads share tiles). The tiling
// decides no result: every output of a product belongs to one row.
std::vector<RowTile> tile_rows(const LogicalTensor& tensor, size_t number, int64_t first_row, int64_t n_rows);

// Weights of the largest tile of rows of that length, row alignment aside.
int64_t tile_weights(int64_t row_length) noexcept;

// Stored rows of one matrix, as fetched. Decoding happens tile by tile inside the product, so floats of a whole matrix never exist.
struct StoredMatrix {
  const LogicalTensor* info = nullptr;
  int64_t n_rows = 0;
  int64_t n_columns = 0;
  std::vector<RawRows> tiles;  // in row order
  uint64_t size_bytes() const noexcept;
};

// All rows as floats; for vectors and small tables only.
std::vector<float> decode_all(const ModelSource& source, const StoredMatrix& matrix);

// Reads tiles ahead of their use on threads of its own. Requests are served in order and must be taken in order; bytes that were read
// but not taken stay within the budget, except that one tile may always be in flight. Errors of the reading threads are thrown by take().
class Prefetcher {
 public:
  Prefetcher(const ModelSource& source, uint64_t budget_bytes, int n_threads = 2);
  ~Prefetcher();
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  void request(std::vector<RowTile> tiles);
  RawRows take();  // the oldest tile that was not taken

 private:
  struct Item {
    RowTile tile;
    uint64_t size_bytes = 0;
    bool started = false;
    bool ready = false;
    RawRows raw;
    std::exception_ptr error;
  };
  void read_loop();
  void stop() noexcept;  // and waits for the reading threads to end
  Item* next_to_read();

  const ModelSource& source_;
  const uint64_t budget_bytes_;
  std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable done_;
  std::deque<Item> items_;
  uint64_t in_flight_bytes_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace quern
