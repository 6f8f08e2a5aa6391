#pragma once

#include <cstdint>
#include <filesystem>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/base/exact_sum.h"
#include "formats/model/model_source.h"
#include "formats/statistics/statistics.h"
#include "quantize/feedback/feedback.h"

namespace quern {

// What came of error feedback, per tensor and type. Thread-safe; the bits do not depend on threads.
class FeedbackLog {
 public:
  struct Rows {
    int64_t n_rows = 0;
    int64_t n_plain = 0;       // rows for which feedback was not better
    int64_t n_unfactored = 0;  // rows whose second moment has no stable factor
    // Squared outputs and errors: |W x|^2, |W x - Y x'|^2 encoded plainly, and of what was written; x' = x but in sequential mode.
    ExactSum energy, plain, written;
  };
  void add(size_t tensor, DType dtype, const Rows& rows);

  struct Outcome {
    size_t tensor = 0;
    DType dtype = DType::F32;
    int64_t n_rows = 0;
    int64_t n_plain = 0;
    int64_t n_unfactored = 0;
    double plain_error = 0;  // relative: squared error / squared outputs
    double error = 0;        // of what was written
  };
  std::vector<Outcome> outcomes() const;  // in the order of tensors and types

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<size_t, DType>, Rows> rows_;
};

// The statistics of a folder. Throws kFormat when they are of another model than `tensors`.
std::unique_ptr<StatisticsSource> open_statistics(const std::filesystem::path& folder, std::span<const LogicalTensor> tensors);

// Encodes rows with error feedback, never worse than without: every row is also encoded plainly, and the one with the smaller output
// error is kept. The error is measured on inputs that were held out of the statistics where there are at least kLeastHeld of them, and
// with the second moment itself where an expert saw too little text to hold any out.
//
// Second moments of slices are shrunk towards those of the whole weight (quantize/feedback/factor.h) and factorised when the first row
// needs them; factors of the last few inputs stay in memory. In sequential mode rows aim at what makes up for the errors of earlier layers
// (quantize/feedback/feedback_shift.h), as far as that helps on the inputs held out. Thread-safe.
class FeedbackEncoder {
 public:
  static constexpr int64_t kLeastHeld = 32;

  // tensors: of the model that is encoded; they must outlive this. cache_bytes: of factors that are kept beside those in use.
  FeedbackEncoder(std::unique_ptr<StatisticsSource> statistics, std::span<const LogicalTensor> tensors, uint64_t cache_bytes);
  ~FeedbackEncoder();

  const StatisticsRecord& record() const noexcept { return statistics_->record(); }
  StatisticsSource& statistics() noexcept { return *statistics_; }

  // Makes sure that the tensor's statistics are there, which may run the model, and stay as long as the result is held; nullptr when there
  // are none. Called by those who hand out work, so that no thread waits for the model while others run it.
  std::shared_ptr<const void> prepare(size_t tensor) { return input_of(tensor); }

  // Equal divisions of the tensor's rows with statistics of their own; 0 when there are none for it or the type cannot have feedback.
  int64_t n_slices(size_t tensor, DType dtype);

  // Memory that factors need at most: the cache, and what is being made.
  uint64_t resident_bytes() const noexcept;

  // (w - y) H (w - y)^T of one row of the slice, H being the damped second moment of its inputs; empty where that has no factor.
  std::optional<double> error(size_t tensor, int64_t slice, std::span<const float> w, std::span<const float> y);

  // As encode_rows_unbiased; the rows belong to this slice (0 of a tensor that has one). importance: what the plain encoding uses, or
  // empty for the diagonal of the moment. log: where what came of it is noted, or nullptr.
  void encode(size_t tensor, int64_t slice, DType dtype, std::span<const float> x, int64_t n_rows, std::span<const float> importance,
              Effort effort, std::span<std::byte> out, FeedbackLog* log);

 private:
  struct Prepared;  // what encoding with one slice's statistics needs
  using Input = std::shared_ptr<const StatisticsInput>;
  struct Found {
    bool none = false;
    std::weak_ptr<const StatisticsInput> input;
  };
  using Key = std::pair<const StatisticsInput*, int64_t>;
  struct Slot {
    Input input;  // so that the key stays its own
    std::mutex mutex;
    std::shared_ptr<const Prepared> prepared;
  };
  Input input_of(size_t tensor);
  std::shared_ptr<const Prepared> prepare(const Input& input, int64_t slice);
  void drop_old_factors(const Key& used);

  std::unique_ptr<StatisticsSource> statistics_;
  std::span<const LogicalTensor> tensors_;
  std::mutex inputs_mutex_;
  std::vector<Found> inputs_;  // per tensor
  uint64_t cache_bytes_;
  std::mutex mutex_;
  std::map<Key, std::shared_ptr<Slot>> slots_;
  std::list<Key> recent_;  // last used first
};

// An encoder with the statistics of a folder, whose cache of factors is kFactorCacheBytes; nullptr for an empty path. tensors: of the model
// that is encoded; they must outlive it. Throws as open_statistics does.
inline constexpr uint64_t kFactorCacheBytes = uint64_t{256} << 20;
std::unique_ptr<FeedbackEncoder> open_feedback(const std::filesystem::path& statistics, std::span<const LogicalTensor> tensors);

}  // namespace quern
