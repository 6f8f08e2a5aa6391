#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/base/file.h"
#include "formats/base/sha256.h"
#include "formats/statistics/second_moment.h"
#include "formats/statistics/statistics_record.h"

namespace quern {

// A folder of calibration statistics: second moments of the inputs of every linear layer of a model, and some of those inputs, held out
// of the moments, to check encodings with. docs/formats/statistics.md has the layout: statistics.json lists what there is, with sizes,
// places and SHA-256; one file of little-endian f32 per input holds the numbers.

// Inputs that are kept, one by one.
struct HeldRows {
  int64_t n_columns = 0;
  std::vector<float> rows;  // [n, n_columns]
  int64_t n_rows() const noexcept { return n_columns > 0 ? static_cast<int64_t>(rows.size()) / n_columns : 0; }
};

// Slice of a weight: an expert, a head, a group, or the whole of it.
inline constexpr int64_t kWholeWeight = -1;

// What is known of the inputs of one slice. In sequential mode they are those x' that reach the layer in the build, and beside them stands
// what the original has in their place.
struct InputStatistics {
  SecondMoment moment;
  HeldRows held;
  std::vector<float> shift;  // sequential mode: [n, n], mean of (x - x') x'^T with the original's inputs x; else empty
  HeldRows held_original;    // sequential mode: the original's inputs beside those held; else empty
};

// Where the statistics of an input are.
struct StatisticsInput {
  struct Place {
    uint64_t offset = 0;
    int64_t n_rows = 0;
    int64_t n_held = 0;
    double fourth = 0;
    bool sequential = false;  // with shift and the original's inputs
    std::string sha256;
  };
  int64_t n_columns = 0;
  std::map<int64_t, Place> slices;
  std::filesystem::path file;
};

// Throws kFormat when the numbers are not those that were written. The slice is one of input.slices.
InputStatistics load_statistics(const StatisticsInput& input, int64_t slice);

// Where error feedback has its statistics from: a folder, or a model that runs as they are asked for.
class StatisticsSource {
 public:
  virtual ~StatisticsSource() = default;
  virtual const StatisticsRecord& record() const noexcept = 0;
  // The statistics of the weight's input, nullptr when there are none. Thread-safe; may run the model first.
  virtual std::shared_ptr<const StatisticsInput> find(std::string_view weight) = 0;
};

class StatisticsWriter {
 public:
  // Creates the folder. Throws kUsage when it holds statistics and overwriting is refused; what an interrupted run left is replaced.
  StatisticsWriter(std::filesystem::path folder, OutputFile::Overwrite overwrite);
  ~StatisticsWriter();

  // weights: names of all that share the input. For weights with slices, kWholeWeight is what all slices have in common.
  void add(std::span<const std::string> weights, int64_t slice, const InputStatistics& statistics);

  struct Finished {
    std::vector<std::string> weights;
    std::shared_ptr<const StatisticsInput> input;
  };
  // Closes the inputs that were added to since the last call; they are complete.
  std::vector<Finished> finish_inputs();
  // Finishes inputs and writes the list; without it the folder is worth nothing.
  void finish(const StatisticsRecord& record);

 private:
  struct Open;
  struct List;
  std::filesystem::path folder_;
  OutputFile::Overwrite overwrite_;  // of the files of inputs
  std::vector<std::unique_ptr<Open>> open_;
  std::unique_ptr<List> list_;
};

// What statistics.json says.
struct StatisticsList {
  StatisticsRecord record;
  std::map<std::string, std::shared_ptr<const StatisticsInput>, std::less<>> by_weight;
};
// Reads hostile text. folder: where its files are; size_bytes: tells the size of one. Throws kFormat for counts and places that the
// files cannot have.
StatisticsList statistics_list_from_json(std::string_view text, const std::filesystem::path& folder,
                                         const std::function<uint64_t(const std::filesystem::path&)>& size_bytes);

// Reads what a StatisticsWriter wrote.
class Statistics final : public StatisticsSource {
 public:
  explicit Statistics(const std::filesystem::path& folder);

  const StatisticsRecord& record() const noexcept override { return list_.record; }
  std::shared_ptr<const StatisticsInput> find(std::string_view weight) override;
  std::vector<std::string> weights() const;  // all that have an input here

 private:
  StatisticsList list_;
};

}  // namespace quern
