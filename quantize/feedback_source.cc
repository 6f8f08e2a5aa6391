#include "quantize/feedback_source.h"

#include <tbb/task_arena.h>

#include <algorithm>
#include <cmath>

#include "formats/base/error.h"
#include "formats/decode.h"
#include "quantize/unbiased.h"

namespace quern {
namespace {

// sum over rows x of held of (w x)^2. Products are added in 16 floats, column by column, then in double.
double output_energy(const float* w, const HeldRows& held) {
  constexpr int64_t kLanes = 16;  // divides the rows of all block types
  double sum = 0.0;
  for (int64_t t = 0; t < held.n_rows(); ++t) {
    const float* x = held.rows.data() + t * held.n_columns;
    float lanes[kLanes] = {};
    for (int64_t j = 0; j < held.n_columns; j += kLanes) {
      for (int64_t k = 0; k < kLanes; ++k) lanes[k] += w[j + k] * x[j + k];
    }
    double y = 0.0;
    for (const float lane : lanes) y += static_cast<double>(lane);
    sum += y * y;
  }
  return sum;
}

}  // namespace

FeedbackSource::FeedbackSource(const std::filesystem::path& folder, std::span<const LogicalTensor> tensors, uint64_t cache_bytes)
    : statistics_(folder), tensors_(tensors), cache_bytes_(cache_bytes) {
  size_t n_found = 0;
  for (const LogicalTensor& tensor : tensors) {
    const Statistics::Input* input = statistics_.find(tensor.name);
    if (input != nullptr && input->n_columns != tensor.shape.row_length()) {
      throw Error(ErrorKind::kFormat, "the statistics are of another model: '" + tensor.name + "' has inputs of " +
                                          std::to_string(input->n_columns) + ", not " + std::to_string(tensor.shape.row_length()))
          .file(folder.string());
    }
    inputs_.push_back(input);
    if (input != nullptr) ++n_found;
  }
  if (n_found == 0)
    throw Error(ErrorKind::kFormat, "the statistics are of another model: no tensor of this one is in them").file(folder.string());
}

FeedbackSource::~FeedbackSource() = default;

int64_t FeedbackSource::n_slices(size_t tensor, DType dtype) const noexcept {
  const Statistics::Input* input = inputs_[tensor];
  if (input == nullptr || !has_feedback_encoder(dtype)) return 0;
  const Shape& shape = tensors_[tensor].shape;
  if (shape.rank() == 3) return shape[0];
  // Groups of a matrix: as many as there are, when they divide its rows.
  const auto n = std::max<int64_t>(1, static_cast<int64_t>(input->slices.size()) - static_cast<int64_t>(input->slices.count(kWholeWeight)));
  return input->slices.size() > 1 && shape.n_rows() % n == 0 ? n : 1;
}

uint64_t FeedbackSource::resident_bytes() const noexcept {
  uint64_t largest = 0;
  for (const Statistics::Input* input : inputs_) {
    if (input == nullptr) continue;
    const auto n = static_cast<uint64_t>(input->n_columns);
    // Two second moments of half a matrix, the factor, the columns that are worked on, the inputs held out.
    largest = std::max(largest, sizeof(float) * (2 * n * n + 1024 * n));
  }
  return cache_bytes_ + largest;
}

// The slice itself, or the whole when it was never seen.
int64_t FeedbackSource::slice_of(const Statistics::Input& input, int64_t slice) const noexcept {
  return input.slices.contains(slice) ? slice : kWholeWeight;
}

std::shared_ptr<const FeedbackSource::Prepared> FeedbackSource::load(const Statistics::Input& input, int64_t slice) const {
  auto prepared = std::make_shared<Prepared>();
  const auto whole = input.slices.find(kWholeWeight);
  const auto own = input.slices.find(slice);
  if (own == input.slices.end()) return prepared;
  Statistics::Loaded loaded = statistics_.load(input, own->second);
  if (slice != kWholeWeight && whole != input.slices.end()) shrink_towards(loaded.moment, statistics_.load(input, whole->second).moment);
  for (int64_t i = 0; i < input.n_columns; ++i) prepared->diagonal.push_back(loaded.moment.half[half_position(i, i)]);
  prepared->held = std::move(loaded.held);
  try {
    prepared->factor = factorise(loaded.moment);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kFormat) throw;
  }
  return prepared;
}

std::shared_ptr<const FeedbackSource::Prepared> FeedbackSource::prepare(const Statistics::Input& input, int64_t slice) {
  const Key key{&input, slice_of(input, slice)};
  std::shared_ptr<Slot> slot;
  {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<Slot>& found = slots_[key];
    if (!found) found = std::make_shared<Slot>();
    slot = found;
    recent_.remove(key);
    recent_.push_front(key);
    uint64_t used = 0;
    for (auto k = recent_.begin(); k != recent_.end();) {
      const std::shared_ptr<Slot> other = slots_.at(*k);
      const std::unique_lock busy(other->mutex, std::try_to_lock);
      if (busy.owns_lock() && other->prepared) used += other->prepared->size_bytes();
      if (used > cache_bytes_ && *k != key && busy.owns_lock()) {
        slots_.erase(*k);
        k = recent_.erase(k);
      } else {
        ++k;
      }
    }
  }
  const std::lock_guard lock(slot->mutex);
  if (!slot->prepared) {
    // Isolated: while the factorisation waits for its own tasks, this thread must not start another chunk that waits for this slot.
    tbb::this_task_arena::isolate([&] { slot->prepared = load(input, key.second); });
  }
  return slot->prepared;
}

void FeedbackSource::encode(size_t tensor, int64_t slice, DType dtype, std::span<const float> x, int64_t n_rows,
                            std::span<const float> importance, Effort effort, std::span<std::byte> out) {
  const Statistics::Input& input = *inputs_[tensor];
  const std::shared_ptr<const Prepared> prepared = prepare(input, slice);
  const int64_t n_cols = input.n_columns;
  encode_rows_unbiased(dtype, x, n_rows, n_cols, importance.empty() ? std::span<const float>(prepared->diagonal) : importance, out, effort);
  Sums sums;
  sums.n_rows = n_rows;
  if (prepared->factor.n_columns == 0) {
    sums.n_plain = sums.n_unfactored = n_rows;
  } else {
    std::vector<std::byte> fed(out.size());
    encode_rows_feedback(dtype, x, n_rows, n_cols, prepared->factor, effort, fed);
    std::vector<float> plain_y(x.size());
    std::vector<float> fed_y(x.size());
    decode_blocks(dtype, out, plain_y);
    decode_blocks(dtype, fed, fed_y);
    const bool held = prepared->held.n_rows() >= kLeastHeld;
    const size_t row_bytes = out.size() / static_cast<size_t>(n_rows);
    for (int64_t i = 0; i < n_rows; ++i) {
      const auto at = static_cast<size_t>(i * n_cols);
      double energy = 0.0;
      double plain = 0.0;
      double with = 0.0;
      if (held) {
        const auto error_of = [&](const std::vector<float>& y) {
          std::vector<float> apart(static_cast<size_t>(n_cols));
          for (size_t j = 0; j < apart.size(); ++j) apart[j] = x[at + j] - y[at + j];
          return output_energy(apart.data(), prepared->held);
        };
        energy = output_energy(x.data() + at, prepared->held);
        plain = error_of(plain_y);
        with = error_of(fed_y);
      } else {
        const std::vector<float> zero(static_cast<size_t>(n_cols));
        const auto row = [&](std::span<const float> all) { return all.subspan(at, static_cast<size_t>(n_cols)); };
        feedback_errors(row(x), zero, 1, prepared->factor, std::span(&energy, 1));
        feedback_errors(row(x), row(plain_y), 1, prepared->factor, std::span(&plain, 1));
        feedback_errors(row(x), row(fed_y), 1, prepared->factor, std::span(&with, 1));
      }
      if (with < plain) {
        std::copy_n(fed.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(i) * row_bytes), row_bytes,
                    out.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(i) * row_bytes));
      } else {
        ++sums.n_plain;
      }
      sums.energy.add(energy);
      sums.plain.add(plain);
      sums.written.add(std::min(plain, with));
    }
  }
  const std::lock_guard lock(sums_mutex_);
  Sums& all = sums_[{tensor, dtype}];
  all.n_rows += sums.n_rows;
  all.n_plain += sums.n_plain;
  all.n_unfactored += sums.n_unfactored;
  all.energy.add(sums.energy);
  all.plain.add(sums.plain);
  all.written.add(sums.written);
}

std::vector<FeedbackSource::Outcome> FeedbackSource::outcomes() const {
  const std::lock_guard lock(sums_mutex_);
  std::vector<Outcome> outcomes;
  for (const auto& [key, sums] : sums_) {
    const double energy = sums.energy.value();
    const double scale = energy > 0.0 ? 1.0 / energy : 0.0;
    outcomes.push_back({tensors_[key.first].name, key.second, sums.n_rows, sums.n_plain, sums.plain.value() * scale,
                        sums.written.value() * scale, sums.n_unfactored});
  }
  return outcomes;
}

}  // namespace quern
