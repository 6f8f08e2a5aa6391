#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/cli.h"
#include "formats/model/model_source.h"
#include "runtime/pass/evaluator.h"
#include "runtime/tokenizer/tokenizer.h"
#include "verify/drift/perplexity.h"

namespace quern::cli {

// What the verbs that run models over a text have in common.

struct EvaluationOptions {
  std::string text;  // file
  int64_t ctx = 512;
  int64_t chunks = 0;  // 0: all
  int threads = 0;     // 0: all that the process may use
  std::string memory;  // empty: 8 GiB, or three quarters of what is free if that is less
  bool plain = false;
  bool dry_run = false;
  bool json = false;
};

// "Text" group: --eval-text, --ctx, --chunks; "Run" group: --threads, --memory, --plain, --dry-run, --json.
void add_evaluation_options(CLI::App& verb, EvaluationOptions& options, bool text_required);

EvalOptions eval_options(const EvaluationOptions& options);

// A text as llama-perplexity cuts it: one newline at the end removed, tokenized with the model's special tokens around it, chunks of
// ctx whose first token becomes BOS if the model adds one.
struct ChunkedText {
  std::unique_ptr<Tokenizer> tokenizer;
  std::vector<Sequence> chunks;
  std::vector<int32_t> text_tokens;  // of the chunks, before BOS was put in
  int64_t n_text_tokens = 0;
};
ChunkedText load_chunks(const ModelSource& source, const EvaluationOptions& options);

uint64_t size_on_disk(const ModelSource& source);
double bits_per_weight(const ModelSource& source);  // of the stored tensors
std::string shown_name(const std::filesystem::path& path);

// Two lines on stderr, what is read and with which text and memory, and below them the notes of the model.
void announce_evaluation(const ModelSource& source, const std::string& model, const EvaluationOptions& options, const ChunkedText& text,
                         const EvalPlan& plan);
// The plan as a table for people.
std::string plan_table(const EvalPlan& plan);

// "read 12.3 GB of 12.4 GB, peak memory 5.1 GB, 61 s" on stderr.
void print_cost(uint64_t bytes_read, uint64_t size_bytes, double seconds);

}  // namespace quern::cli
