#pragma once

#include <cstdint>
#include <string>

namespace quern {

// Modes of statistics: activations of the original model, or of the build whose layers are already encoded, beside the original's.
inline constexpr const char* kOriginalMode = "original";
inline constexpr const char* kSequentialMode = "sequential";

// What a folder of calibration statistics was made from: names only, never folders.
struct StatisticsRecord {
  std::string model;
  std::string text;         // name of the calibration text
  std::string text_sha256;  // of the file
  std::string mode;         // kOriginalMode or kSequentialMode
  int64_t ctx = 0;
  int64_t n_tokens = 0;
  std::string sha256;  // of statistics.json, when read
};

}  // namespace quern
