#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace quern::safetensors {

inline constexpr const char* kIndexName = "model.safetensors.index.json";
inline constexpr uint64_t kMaxIndexBytes = 100'000'000;  // docs/limits.md

// The weight_map of a model.safetensors.index.json: which file has which tensor. File names are relative, without "..".
// metadata.total_size is ignored: it is wrong in many repositories.
struct Index {
  struct Entry {
    std::string tensor;
    size_t file;  // position in `files`
  };
  std::vector<std::string> files;  // sorted
  std::vector<Entry> entries;      // sorted by tensor name
};
Index parse_index(std::span<const std::byte> json);

}  // namespace quern::safetensors
