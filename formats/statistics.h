#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/base/file.h"
#include "formats/base/sha256.h"
#include "formats/second_moment.h"
#include "formats/statistics_record.h"

namespace quern {

// A folder of calibration statistics: second moments of the inputs of every linear layer of a model, and some of those inputs, held out
// of the moments, to check encodings with. docs/formats/statistics.md has the layout: statistics.json lists what there is, with sizes,
// places and SHA-256; one file of little-endian f32 per block of the model holds the numbers.

// Inputs that are kept, one by one.
struct HeldRows {
  int64_t n_columns = 0;
  std::vector<float> rows;  // [n, n_columns]
  int64_t n_rows() const noexcept { return n_columns > 0 ? static_cast<int64_t>(rows.size()) / n_columns : 0; }
};

// Slice of a weight: an expert, a head, a group, or the whole of it.
inline constexpr int64_t kWholeWeight = -1;

class StatisticsWriter {
 public:
  // Creates the folder. Throws kUsage when it holds statistics and overwriting is refused.
  StatisticsWriter(std::filesystem::path folder, OutputFile::Overwrite overwrite);
  ~StatisticsWriter();

  // weights: names of all that share the input. For weights with slices, kWholeWeight is what all slices have in common.
  void add(std::span<const std::string> weights, int64_t slice, const SecondMoment& moment, const HeldRows& held);
  // Writes the list; without it the folder is worth nothing.
  void finish(const StatisticsRecord& record);

 private:
  struct Block;
  struct List;
  std::filesystem::path folder_;
  OutputFile::Overwrite overwrite_;
  std::unique_ptr<Block> block_;
  std::unique_ptr<List> list_;
};

// Reads what a StatisticsWriter wrote. Thread-safe after construction.
class Statistics {
 public:
  explicit Statistics(const std::filesystem::path& folder);

  const StatisticsRecord& record() const noexcept { return record_; }

  struct Place {
    size_t file = 0;
    uint64_t offset = 0;
    int64_t n_rows = 0;
    int64_t n_held = 0;
    double fourth = 0;
    std::string sha256;
  };
  struct Input {
    int64_t n_columns = 0;
    std::map<int64_t, Place> slices;
  };

  // nullptr when the weight's input was not seen.
  const Input* find(std::string_view weight) const noexcept;
  // Throws kFormat when the numbers are not those that were written.
  struct Loaded {
    SecondMoment moment;
    HeldRows held;
  };
  Loaded load(const Input& input, const Place& place) const;

 private:
  StatisticsRecord record_;
  std::vector<InputFile> files_;
  std::vector<Input> inputs_;
  std::map<std::string, size_t, std::less<>> by_weight_;
};

}  // namespace quern
