#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "formats/base/progress.h"
#include "formats/model/model_source.h"

namespace quern {

// What differs between two models, A and B: GGUF files or checkpoints, of any types. Weights are compared decoded.

struct KeyDifference {
  std::string key;
  const MetaValue* a = nullptr;  // in the sources' metadata; nullptr: only in the other
  const MetaValue* b = nullptr;
};

struct TensorDifference {
  std::string name;
  std::optional<size_t> a, b;  // positions in the sources; empty: only in the other
  bool comparable = false;     // in both, with one shape, and of floats
  int64_t n_weights = 0;
  int64_t n_different = 0;    // weights with other bits
  double relative_error = 0;  // ||A - B|| / ||A||
  double largest_change = 0;  // of a weight
};

struct ModelDifference {
  std::vector<KeyDifference> keys;
  std::vector<TensorDifference> tensors;  // that differ in type, shape or any weight
  size_t n_same_tensors = 0;
};

// Reads both models once. Same figures for any number of threads. Tables of integers are compared as stored.
ModelDifference compare_models(const ModelSource& a, const ModelSource& b, Progress& progress);

// "quern.diff/1", with a newline.
std::string difference_to_json(const ModelSource& a, const ModelSource& b, const ModelDifference& difference);

}  // namespace quern
