#include "runtime/math/weights.h"

#include <algorithm>

#include "formats/base/error.h"
#include "formats/base/parallel.h"

namespace quern {

TensorIndex::TensorIndex(const ModelSource& source) : source_(&source) {
  const auto tensors = source.tensors();
  for (size_t i = 0; i < tensors.size(); ++i) by_name_.emplace(tensors[i].name, i);
}

const LogicalTensor* TensorIndex::find(std::string_view name) const noexcept {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &source_->tensors()[found->second];
}

const LogicalTensor& TensorIndex::get(std::string_view name, const Shape& shape) const {
  const LogicalTensor* tensor = find(name);
  if (tensor == nullptr) throw Error(ErrorKind::kFormat, "missing, expected shape " + shape.to_string()).tensor(name);
  if (tensor->shape != shape) {
    throw Error(ErrorKind::kFormat, "shape " + tensor->shape.to_string() + ", expected " + shape.to_string()).tensor(name);
  }
  return *tensor;
}

namespace {

constexpr int64_t kRowUnit = 96;

// A multiple of kRowUnit rows of about 2^18 weights.
int64_t rows_of_tile(int64_t row_length) noexcept {
  constexpr int64_t kTileWeights = 1 << 18;
  return std::max<int64_t>(1, kTileWeights / std::max<int64_t>(1, row_length) / kRowUnit) * kRowUnit;
}

}  // namespace

int64_t tile_weights(int64_t row_length) noexcept { return rows_of_tile(row_length) * row_length; }

std::vector<RowTile> tile_rows(const LogicalTensor& tensor, size_t number, int64_t first_row, int64_t n_rows) {
  constexpr int64_t kTilesPerThread = 2, kPanel = 16;
  const int64_t alignment = std::max<int64_t>(1, tensor.row_alignment), n_tiles = kTilesPerThread * thread_limit();
  const int64_t fair = (n_rows / n_tiles + kPanel - 1) / kPanel * kPanel;
  int64_t rows = std::clamp(fair, std::min(kPanel, n_rows), rows_of_tile(tensor.shape.row_length()));
  rows = (rows + alignment - 1) / alignment * alignment;
  std::vector<RowTile> tiles;
  for (int64_t row = first_row; row < first_row + n_rows; row += rows) {
    tiles.push_back({number, row, std::min(rows, first_row + n_rows - row)});
  }
  return tiles;
}

uint64_t StoredMatrix::size_bytes() const noexcept {
  uint64_t sum = 0;
  for (const RawRows& tile : tiles) sum += tile.bytes.size();
  return sum;
}

std::vector<float> decode_all(const ModelSource& source, const StoredMatrix& matrix) {
  std::vector<float> values(static_cast<size_t>(matrix.n_rows * matrix.n_columns));
  size_t done = 0;
  for (const RawRows& tile : matrix.tiles) {
    const auto n = static_cast<size_t>(tile.n_rows * matrix.n_columns);
    source.decode(tile, std::span(values).subspan(done, n));
    done += n;
  }
  return values;
}

Prefetcher::Prefetcher(const ModelSource& source, uint64_t budget_bytes, int n_threads) : source_(source), budget_bytes_(budget_bytes) {
  try {
    for (int i = 0; i < n_threads; ++i) threads_.emplace_back([this] { read_loop(); });
  } catch (...) {  // no memory or no thread for another one: a thread that is not joined would end the process
    stop();
    throw;
  }
}

Prefetcher::~Prefetcher() { stop(); }

void Prefetcher::stop() noexcept {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Prefetcher::request(std::vector<RowTile> tiles) {
  {
    const std::lock_guard lock(mutex_);
    for (const RowTile& tile : tiles) {
      Item& item = items_.emplace_back();
      item.tile = tile;
      item.size_bytes = source_.raw_bytes(tile.tensor, tile.n_rows);
    }
  }
  work_.notify_all();
}

Prefetcher::Item* Prefetcher::next_to_read() {
  const auto next = std::ranges::find_if(items_, [](const Item& item) { return !item.started; });
  if (next == items_.end()) return nullptr;
  return in_flight_bytes_ == 0 || in_flight_bytes_ + next->size_bytes <= budget_bytes_ ? &*next : nullptr;
}

void Prefetcher::read_loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    Item* item = nullptr;
    work_.wait(lock, [&] { return stopping_ || (item = next_to_read()) != nullptr; });
    if (stopping_) return;
    item->started = true;
    in_flight_bytes_ += item->size_bytes;
    lock.unlock();  // a deque keeps its elements in place while others are added at the back and taken at the front
    try {
      source_.fetch(item->tile.tensor, item->tile.first_row, item->tile.n_rows, item->raw);
    } catch (...) {
      item->error = std::current_exception();
    }
    lock.lock();
    item->ready = true;
    done_.notify_all();
  }
}

RawRows Prefetcher::take() {
  std::unique_lock lock(mutex_);
  QUERN_CHECK(!items_.empty());
  done_.wait(lock, [&] { return items_.front().ready; });
  Item item = std::move(items_.front());
  items_.pop_front();
  in_flight_bytes_ -= item.size_bytes;
  lock.unlock();
  work_.notify_all();
  if (item.error) std::rethrow_exception(item.error);
  return std::move(item.raw);
}

}  // namespace quern
