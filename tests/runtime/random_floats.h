#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace quern {

// n normally distributed values, the same for the same seed.
inline std::vector<float> random_floats(size_t n, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& value : values) value = normal(engine);
  return values;
}

}  // namespace quern
