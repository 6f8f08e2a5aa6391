#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "formats/model/model_source.h"
#include "runtime/pass/evaluator.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern {

// Texts that models run over: to be measured on, or to collect statistics from.

struct TextOptions {
  std::filesystem::path file;
  int64_t ctx = 512;       // tokens per chunk
  int64_t max_chunks = 0;  // the first ones only; 0: all
};

// A text as llama-perplexity cuts it: one newline at the end removed, tokenized with the model's special tokens around it, chunks of
// ctx whose first token becomes BOS if the model adds one.
struct ChunkedText {
  std::unique_ptr<Tokenizer> tokenizer;
  std::vector<Sequence> chunks;
  std::vector<int32_t> text_tokens;   // of the chunks, before BOS was put in
  int64_t n_text_tokens = 0;          // of the whole text
  std::vector<std::string> warnings;  // why figures of it cannot be compared with others, one line each
};

// Reads the file, at most 1 GiB, and cuts it for this model. Throws kIo, kFormat for UTF-16, and kUsage naming the file when it is empty or
// too short (make_chunks in verify/drift/perplexity.h).
ChunkedText load_text(const ModelSource& model, const TextOptions& options);

// What to say of chunks that are longer than a model's context; empty when they are not.
std::string context_warning(const Metadata& metadata, int64_t n_ctx);

// Memory for running a model when nobody says how much: 8 GiB, or three quarters of what is free if that is less.
uint64_t default_evaluation_memory();

}  // namespace quern
