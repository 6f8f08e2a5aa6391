#include "quantize/feedback/feedback_encoder.h"

#include <tbb/task_arena.h>

#include <algorithm>
#include <cmath>

#include "formats/base/error.h"
#include "formats/types/decode.h"
#include "quantize/feedback/feedback_shift.h"
#include "quantize/feedback/unbiased.h"

// Everything that rows of one weight need from its statistics (the factor, inputs held out, the shift of sequential mode) is prepared
// when the first of its rows comes, by the thread that brings it, while others that need the same wait; the last few are kept, because
// the tensors that share an input (query, key and value; gate and up) follow each other. Rows are encoded twice, plainly and with
// feedback, and compared by their outputs for inputs that the factor has not seen. Feedback that has learned too much from too little text
// loses there, row by row, and that is what makes it safe to have on everywhere.

namespace quern {
namespace {

// w x for all rows x of held. Products are added in 16 floats, column by column, then in double.
std::vector<double> outputs(std::span<const float> w, const HeldRows& held) {
  constexpr int64_t kLanes = 16;  // divides the rows of all block types
  std::vector<double> result;
  for (int64_t t = 0; t < held.n_rows(); ++t) {
    const float* x = held.rows.data() + t * held.n_columns;
    float lanes[kLanes] = {};
    for (int64_t j = 0; j < held.n_columns; j += kLanes) {
      for (int64_t k = 0; k < kLanes; ++k) lanes[k] += w[static_cast<size_t>(j + k)] * x[j + k];
    }
    double sum = 0.0;
    for (const float lane : lanes) sum += static_cast<double>(lane);
    result.push_back(sum);
  }
  return result;
}

double squared_distance(std::span<const double> a, std::span<const double> b) {
  double sum = 0.0;
  for (size_t t = 0; t < a.size(); ++t) sum += (a[t] - b[t]) * (a[t] - b[t]);
  return sum;
}

// Rows of numbers side by side.
template <typename T>
std::span<T> row_of(std::span<T> all, int64_t row, int64_t n) {
  return all.subspan(static_cast<size_t>(row * n), static_cast<size_t>(n));
}

}  // namespace

struct FeedbackEncoder::Prepared {
  FeedbackFactor factor;  // without columns when there is none
  std::vector<float> diagonal;
  HeldRows held;
  std::vector<float> shift;  // sequential mode
  HeldRows held_original;    // sequential mode

  explicit Prepared(const StatisticsInput& input, int64_t slice) {
    if (!input.slices.contains(slice)) return;
    InputStatistics own = load_statistics(input, slice);
    if (slice != kWholeWeight && input.slices.contains(kWholeWeight)) {
      const InputStatistics whole = load_statistics(input, kWholeWeight);
      const auto weight = static_cast<float>(shrink_towards(own.moment, whole.moment));
      for (size_t k = 0; k < own.shift.size(); ++k) own.shift[k] = (1.0f - weight) * own.shift[k] + weight * whole.shift[k];
    }
    for (int64_t i = 0; i < input.n_columns; ++i) diagonal.push_back(own.moment.half[half_position(i, i)]);
    held = std::move(own.held);
    shift = std::move(own.shift);
    held_original = std::move(own.held_original);
    try {
      factor = factorise(own.moment);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kFormat) throw;
    }
  }

  uint64_t size_bytes() const noexcept {
    return sizeof(float) * (factor.r.size() + held.rows.size() + shift.size() + held_original.rows.size());
  }
  bool can_check() const noexcept { return held.n_rows() >= kLeastHeld; }
  bool sequential() const noexcept { return !shift.empty(); }
  const HeldRows& originals() const noexcept { return sequential() ? held_original : held; }

  // What rows should become: the weights, and in sequential mode their corrections by the length that is best for the inputs held out,
  // at most all of it; none where there are too few inputs to tell.
  std::vector<float> aims(std::span<const float> w, int64_t n_rows) const {
    std::vector<float> aims(w.begin(), w.end());
    if (!sequential() || !can_check()) return aims;
    const int64_t n = factor.n_columns;
    std::vector<float> corrections(w.size());
    shift_corrections(w, n_rows, factor, shift, corrections);
    for (int64_t i = 0; i < n_rows; ++i) {
      const std::span<const float> step = row_of(std::span<const float>(corrections), i, n);
      const std::vector<double> wanted = outputs(row_of(w, i, n), held_original), given = outputs(row_of(w, i, n), held);
      const std::vector<double> change = outputs(step, held);
      double along = 0.0, square = 0.0;
      for (size_t t = 0; t < change.size(); ++t) {
        along += (wanted[t] - given[t]) * change[t];
        square += change[t] * change[t];
      }
      const double length = square > 0.0 ? std::clamp(along / square, 0.0, 1.0) : 0.0;
      const std::span<float> aim = row_of(std::span<float>(aims), i, n);
      for (size_t j = 0; j < aim.size(); ++j) aim[j] += static_cast<float>(length) * step[j];
    }
    return aims;
  }

  struct RowError {
    double energy = 0.0, plain = 0.0, fed = 0.0;
  };
  RowError row_error(std::span<const float> w, std::span<const float> plain, std::span<const float> fed) const {
    RowError error;
    const std::vector<float> zero(w.size());
    if (can_check()) {
      const std::vector<double> wanted = outputs(w, originals());
      error.energy = squared_distance(wanted, std::vector<double>(wanted.size()));
      error.plain = squared_distance(wanted, outputs(plain, held));
      error.fed = squared_distance(wanted, outputs(fed, held));
    } else {
      feedback_errors(w, zero, 1, factor, std::span(&error.energy, 1));
      feedback_errors(w, plain, 1, factor, std::span(&error.plain, 1));
      feedback_errors(w, fed, 1, factor, std::span(&error.fed, 1));
    }
    return error;
  }
};

std::unique_ptr<StatisticsSource> open_statistics(const std::filesystem::path& folder, std::span<const LogicalTensor> tensors) {
  auto statistics = std::make_unique<Statistics>(folder);
  const std::vector<std::string> weights = statistics->weights();
  const auto n_unknown = std::ranges::count_if(
      weights, [&](const std::string& weight) { return std::ranges::find(tensors, weight, &LogicalTensor::name) == tensors.end(); });
  // A few may be: the two forms of MLA have tensors of their own.
  if (4 * n_unknown > std::ssize(weights) || weights.empty()) {
    throw Error(ErrorKind::kFormat, "the statistics are of another model: " + std::to_string(n_unknown) + " of the " +
                                        std::to_string(weights.size()) + " tensors in them are not in this one")
        .file(folder.string());
  }
  for (const LogicalTensor& tensor : tensors) {
    const std::shared_ptr<const StatisticsInput> input = statistics->find(tensor.name);
    if (input == nullptr || input->n_columns == tensor.shape.row_length()) continue;
    throw Error(ErrorKind::kFormat, "the statistics are of another model: '" + tensor.name + "' has inputs of " +
                                        std::to_string(input->n_columns) + ", not " + std::to_string(tensor.shape.row_length()))
        .file(folder.string());
  }
  return statistics;
}

std::unique_ptr<FeedbackEncoder> open_feedback(const std::filesystem::path& statistics, std::span<const LogicalTensor> tensors) {
  if (statistics.empty()) return nullptr;
  return std::make_unique<FeedbackEncoder>(open_statistics(statistics, tensors), tensors, kFactorCacheBytes);
}

FeedbackEncoder::FeedbackEncoder(std::unique_ptr<StatisticsSource> statistics, std::span<const LogicalTensor> tensors, uint64_t cache_bytes)
    : statistics_(std::move(statistics)), tensors_(tensors), inputs_(tensors.size()), cache_bytes_(cache_bytes) {}

FeedbackEncoder::~FeedbackEncoder() = default;

FeedbackEncoder::Input FeedbackEncoder::input_of(size_t tensor) {
  {
    const std::lock_guard lock(inputs_mutex_);
    if (inputs_[tensor].none) return nullptr;
    if (Input input = inputs_[tensor].input.lock()) return input;
  }
  Input input = statistics_->find(tensors_[tensor].name);  // unlocked: it may encode other tensors on its way
  const std::lock_guard lock(inputs_mutex_);
  inputs_[tensor] = {input == nullptr, input};
  return input;
}

int64_t FeedbackEncoder::n_slices(size_t tensor, DType dtype) {
  if (!has_feedback_encoder(dtype)) return 0;
  const Input input = input_of(tensor);
  if (input == nullptr) return 0;
  const Shape& shape = tensors_[tensor].shape;
  if (shape.rank() == 3) return shape[0];
  // Groups of a matrix: as many as there are, when they divide its rows.
  const auto n = std::max<int64_t>(1, std::ssize(input->slices) - static_cast<int64_t>(input->slices.count(kWholeWeight)));
  return input->slices.size() > 1 && shape.n_rows() % n == 0 ? n : 1;
}

uint64_t FeedbackEncoder::resident_bytes() const noexcept {
  uint64_t n = 0;
  for (const LogicalTensor& tensor : tensors_) {
    if (tensor.shape.rank() >= 2) n = std::max(n, static_cast<uint64_t>(tensor.shape.row_length()));
  }
  // Second moments of half a matrix of the slice and the whole, the factor, the columns that are worked on, the inputs held out; in
  // sequential mode also the shifts.
  const bool sequential = statistics_->record().mode == kSequentialMode;
  return cache_bytes_ + sizeof(float) * ((sequential ? 4 : 2) * n * n + 1024 * n);
}

void FeedbackEncoder::drop_old_factors(const Key& used) {
  recent_.remove(used);
  recent_.push_front(used);
  uint64_t kept_bytes = 0;
  for (auto k = recent_.begin(); k != recent_.end();) {
    const std::shared_ptr<Slot> slot = slots_.at(*k);
    const std::unique_lock free(slot->mutex, std::try_to_lock);
    if (free.owns_lock() && slot->prepared) kept_bytes += slot->prepared->size_bytes();
    if (kept_bytes > cache_bytes_ && *k != used && free.owns_lock()) {
      slots_.erase(*k);
      k = recent_.erase(k);
    } else {
      ++k;
    }
  }
}

std::shared_ptr<const FeedbackEncoder::Prepared> FeedbackEncoder::prepare(const Input& input, int64_t slice) {
  const Key key{input.get(), input->slices.contains(slice) ? slice : kWholeWeight};  // the whole where the slice was never seen
  std::shared_ptr<Slot> slot;
  {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<Slot>& found = slots_[key];
    if (!found) {
      found = std::make_shared<Slot>();
      found->input = input;
    }
    slot = found;
    drop_old_factors(key);
  }
  const std::lock_guard lock(slot->mutex);
  if (!slot->prepared) {
    // Isolated: while the factorisation waits for its own tasks, this thread must not start another chunk that waits for this slot.
    tbb::this_task_arena::isolate([&] { slot->prepared = std::make_shared<Prepared>(*input, key.second); });
  }
  return slot->prepared;
}

std::optional<double> FeedbackEncoder::error(size_t tensor, int64_t slice, std::span<const float> w, std::span<const float> y) {
  const std::shared_ptr<const Prepared> prepared = prepare(input_of(tensor), slice);
  if (prepared->factor.n_columns == 0) return std::nullopt;
  double error = 0.0;
  feedback_errors(w, y, 1, prepared->factor, std::span(&error, 1));
  return error;
}

void FeedbackEncoder::encode(size_t tensor, int64_t slice, DType dtype, std::span<const float> x, int64_t n_rows,
                             std::span<const float> importance, Effort effort, std::span<std::byte> out, FeedbackLog* log) {
  const Input input = input_of(tensor);
  const std::shared_ptr<const Prepared> prepared = prepare(input, slice);
  const int64_t n_cols = input->n_columns;
  if (importance.empty()) importance = prepared->diagonal;
  encode_rows_unbiased(dtype, x, n_rows, n_cols, importance, out, effort);
  FeedbackLog::Rows rows;
  rows.n_rows = n_rows;
  if (prepared->factor.n_columns == 0) {
    rows.n_plain = rows.n_unfactored = n_rows;
  } else {
    std::vector<std::byte> fed(out.size());
    encode_rows_feedback(dtype, prepared->aims(x, n_rows), n_rows, n_cols, prepared->factor, effort, fed);
    std::vector<float> plain_y(x.size()), fed_y(x.size());
    decode_blocks(dtype, out, plain_y);
    decode_blocks(dtype, fed, fed_y);
    const int64_t row_bytes = std::ssize(out) / n_rows;
    for (int64_t i = 0; i < n_rows; ++i) {
      const Prepared::RowError error = prepared->row_error(row_of(x, i, n_cols), row_of(std::span<const float>(plain_y), i, n_cols),
                                                           row_of(std::span<const float>(fed_y), i, n_cols));
      if (error.fed < error.plain) {
        std::ranges::copy(row_of(std::span<const std::byte>(fed), i, row_bytes), row_of(out, i, row_bytes).begin());
      } else {
        ++rows.n_plain;
      }
      rows.energy.add(error.energy);
      rows.plain.add(error.plain);
      rows.written.add(std::min(error.plain, error.fed));
    }
  }
  if (log != nullptr) log->add(tensor, dtype, rows);
}

void FeedbackLog::add(size_t tensor, DType dtype, const Rows& rows) {
  const std::lock_guard lock(mutex_);
  Rows& all = rows_[{tensor, dtype}];
  all.n_rows += rows.n_rows;
  all.n_plain += rows.n_plain;
  all.n_unfactored += rows.n_unfactored;
  all.energy.add(rows.energy);
  all.plain.add(rows.plain);
  all.written.add(rows.written);
}

std::vector<FeedbackLog::Outcome> FeedbackLog::outcomes() const {
  const std::lock_guard lock(mutex_);
  std::vector<Outcome> outcomes;
  for (const auto& [key, rows] : rows_) {
    const double energy = rows.energy.value();
    const double scale = energy > 0.0 ? 1.0 / energy : 0.0;
    outcomes.push_back(
        {key.first, key.second, rows.n_rows, rows.n_plain, rows.n_unfactored, rows.plain.value() * scale, rows.written.value() * scale});
  }
  return outcomes;
}

}  // namespace quern
