#pragma once

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "formats/base/error.h"
#include "formats/base/file.h"
#include "runtime/pass/evaluator.h"

namespace quern {

// A numpy array of 4-byte elements (format version 1, C order).
template <typename T>
struct Array {
  std::vector<int64_t> shape;
  std::vector<T> values;

  static Array load(const std::filesystem::path& path) {
    static_assert(sizeof(T) == 4);
    const std::vector<std::byte> bytes = read_file(path, 1 << 28);
    uint16_t header_size;
    std::memcpy(&header_size, bytes.data() + 8, 2);
    const std::string header(reinterpret_cast<const char*>(bytes.data()) + 10, header_size);
    Array array;
    size_t at = header.find("'shape': (") + 10;
    while (header[at] != ')') {
      size_t used = 0;
      array.shape.push_back(std::stoll(header.substr(at), &used));
      at += used;
      while (header[at] == ',' || header[at] == ' ') ++at;
    }
    array.values.resize((bytes.size() - 10 - header_size) / 4);
    std::memcpy(array.values.data(), bytes.data() + 10 + header_size, array.values.size() * 4);
    return array;
  }
};

// What ../shared/README.md describes under models/*/goldens.
struct Goldens {
  std::vector<Sequence> chunks;
  nlohmann::json figures;
  Array<float> log_probs, logits, mtp_log_probs;

  explicit Goldens(const std::filesystem::path& model) {
    const std::filesystem::path folder = model / "goldens";
    const Array<int32_t> tokens = Array<int32_t>::load(folder / "tokens.npy");
    const auto ctx = static_cast<ptrdiff_t>(tokens.shape[1]);
    for (ptrdiff_t c = 0; c < tokens.shape[0]; ++c) {
      chunks.push_back({{tokens.values.begin() + c * ctx, tokens.values.begin() + (c + 1) * ctx}});
    }
    std::ifstream file(folder / "goldens.json");
    figures = nlohmann::json::parse(file);
    log_probs = Array<float>::load(folder / "logprobs.npy");
    logits = Array<float>::load(folder / "logits.npy");
    if (std::filesystem::exists(folder / "mtp_logprobs.npy")) mtp_log_probs = Array<float>::load(folder / "mtp_logprobs.npy");
  }
};

}  // namespace quern
