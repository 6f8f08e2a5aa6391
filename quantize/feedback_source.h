#pragma once

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "formats/base/exact_sum.h"
#include "formats/model_source.h"
#include "formats/statistics.h"
#include "quantize/feedback.h"

namespace quern {

// Encodes rows with error feedback from a folder of statistics, never worse than without: every row is also encoded plainly, and the one
// with the smaller output error is kept. The error is measured on inputs that were held out of the statistics where there are at least
// kLeastHeld of them, and with the second moment itself where an expert saw too little text to hold any out.
//
// Second moments of slices are shrunk towards those of the whole weight (quantize/factor.h) and factorised when the first row needs
// them; factors of the last few inputs stay in memory. Thread-safe.
class FeedbackSource {
 public:
  static constexpr int64_t kLeastHeld = 32;

  // tensors: of the model that is encoded; they must outlive this. cache_bytes: of factors that are kept beside those in use.
  FeedbackSource(const std::filesystem::path& folder, std::span<const LogicalTensor> tensors, uint64_t cache_bytes);
  ~FeedbackSource();

  const StatisticsRecord& record() const noexcept { return statistics_.record(); }

  // Equal divisions of the tensor's rows with statistics of their own; 0 when there are none for it or the type cannot have feedback.
  int64_t n_slices(size_t tensor, DType dtype) const noexcept;

  // Memory that factors need at most: the cache, and what is being made.
  uint64_t resident_bytes() const noexcept;

  // As encode_rows_unbiased; the rows belong to this slice (0 of a tensor that has one). importance: what the plain encoding uses, or empty
  // for the diagonal of the moment.
  void encode(size_t tensor, int64_t slice, DType dtype, std::span<const float> x, int64_t n_rows, std::span<const float> importance,
              Effort effort, std::span<std::byte> out);

  // What came of it, in the order of the model's tensors and of types. The bits do not depend on threads.
  struct Outcome {
    std::string tensor;
    DType dtype = DType::F32;
    int64_t n_rows = 0;
    int64_t n_plain = 0;        // rows for which feedback was not better
    double plain_error = 0;     // relative output error: sum |(w - y) x|^2 / sum |w x|^2
    double feedback_error = 0;  // the same of what was written
    int64_t n_unfactored = 0;   // rows whose second moment has no stable factor
  };
  std::vector<Outcome> outcomes() const;

 private:
  struct Prepared {
    FeedbackFactor factor;  // without columns when there is none
    std::vector<float> diagonal;
    HeldRows held;
    uint64_t size_bytes() const noexcept { return sizeof(float) * (factor.r.size() + held.rows.size()); }
  };
  using Key = std::pair<const Statistics::Input*, int64_t>;
  struct Slot {
    std::mutex mutex;
    std::shared_ptr<const Prepared> prepared;
  };
  struct Sums {
    int64_t n_rows = 0;
    int64_t n_plain = 0;
    int64_t n_unfactored = 0;
    ExactSum energy, plain, written;
  };

  std::shared_ptr<const Prepared> prepare(const Statistics::Input& input, int64_t slice);
  std::shared_ptr<const Prepared> load(const Statistics::Input& input, int64_t slice) const;
  int64_t slice_of(const Statistics::Input& input, int64_t slice) const noexcept;

  Statistics statistics_;
  std::span<const LogicalTensor> tensors_;
  std::vector<const Statistics::Input*> inputs_;  // per tensor
  uint64_t cache_bytes_;
  std::mutex mutex_;
  std::map<Key, std::shared_ptr<Slot>> slots_;
  std::list<Key> recent_;  // last used first
  mutable std::mutex sums_mutex_;
  std::map<std::pair<size_t, DType>, Sums> sums_;
};

}  // namespace quern
