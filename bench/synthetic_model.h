#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace quern::bench {

// A model of random weights (tests/formats/random_model.h) for timing: what it computes is noise, what it costs is not.
struct SyntheticModel {
  bool moe = false;  // Qwen3-MoE: 64 experts, 8 of them used; otherwise llama
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t width = 0;  // of a feed-forward network: 2.75 x hidden, or of one expert
  int64_t heads = 0;  // 64 wide; as many key heads, half as many in the mixture

  int64_t parameters() const noexcept;
};

// The model nearest to a number of parameters: width and depth grow together, 24 layers at 1024 (373 million parameters).
SyntheticModel dense_model(int64_t parameters);
// 1024 wide; the number of layers follows from the size.
SyntheticModel moe_model(int64_t parameters);

// The checkpoint in BF16, with the tokenizer of mini-llama3 and a vocabulary filled up to 32000.
void write_checkpoint_of(const SyntheticModel& model, const std::filesystem::path& folder);

// Words of random letters, at least n_tokens tokens of that tokenizer.
std::string synthetic_text(int64_t n_tokens);

}  // namespace quern::bench
