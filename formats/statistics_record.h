#pragma once

#include <cstdint>
#include <string>

namespace quern {

// What a folder of calibration statistics was made from: names only, never folders.
struct StatisticsRecord {
  std::string model;
  std::string text;         // name of the calibration text
  std::string text_sha256;  // of the file
  std::string mode;         // "original": activations of the original model
  int64_t ctx = 0;
  int64_t n_tokens = 0;
  std::string sha256;  // of statistics.json, when read
};

}  // namespace quern
