// random_goldens MODEL_DIR: writes, as the goldens of a random checkpoint, what quern's own forward pass makes of random tokens. Where
// nobody has published goldens, llama.cpp's agreement with these is the evidence for both.

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "formats/arch/config.h"
#include "formats/model/model_source.h"
#include "verify/drift/perplexity.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kContext = 256;

// One row of 4-byte values as a numpy array of shape (1, n).
template <typename T>
void write_npy(const fs::path& path, const char* type, const std::vector<T>& values) {
  static_assert(sizeof(T) == 4);
  std::string header =
      std::string("{'descr': '") + type + "', 'fortran_order': False, 'shape': (1, " + std::to_string(values.size()) + "), }";
  header.resize((header.size() + 10 + 64) / 64 * 64 - 11, ' ');
  header += '\n';
  const auto size = static_cast<uint16_t>(header.size());
  std::ofstream file(path, std::ios::binary);
  file.write("\x93NUMPY\x01\x00", 8).write(reinterpret_cast<const char*>(&size), 2) << header;
  file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * 4));
}

std::vector<int32_t> random_tokens(int64_t n_vocab) {
  std::vector<int32_t> tokens;
  uint64_t state = 1;
  for (int64_t i = 0; i < kContext; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    tokens.push_back(static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(n_vocab)));
  }
  return tokens;
}

void write_goldens(const fs::path& model) {
  const auto source = open_model(model);
  const std::vector<int32_t> tokens = random_tokens(load_config(model).get_count("vocab_size"));
  const Perplexity result = measure_perplexity(*source, {.arithmetic = Arithmetic::kPlain}, {{tokens}}, no_progress());
  const fs::path folder = model / "goldens";
  fs::create_directories(folder);
  write_npy(folder / "tokens.npy", "<i4", tokens);
  write_npy(folder / "logprobs.npy", "<f4", result.log_probs);
  std::ofstream(folder / "goldens.json") << "{}\n";
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    quern::write_goldens(argv[1]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
