#pragma once

#include <string>
#include <vector>

#include "cli/cli.h"
#include "formats/model/model_source.h"
#include "runtime/pass/evaluator.h"
#include "verify/drift/chunked_text.h"
#include "verify/drift/drift_statistics.h"

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
TextOptions text_options(const EvaluationOptions& options);

// Two lines on stderr, what is read and with which text and memory, and below them the warnings of the text.
void announce_evaluation(const ModelSource& source, const std::string& model, const EvaluationOptions& options, const ChunkedText& text,
                         const EvalPlan& plan);
// The plan of a pass over a model as a table for people.
std::string plan_table(const EvalPlan& plan);
struct PlannedPass {
  std::string model;  // as it was named
  EvalPlan plan;
};
// The answer to --dry-run --json: the one pass, or with several of them a list "models".
std::string plans_to_json(const char* schema, const std::vector<PlannedPass>& passes);

// "5.1234 +-0.0056": both by a printf format.
std::string with_error(const char* format, Estimate e);

// "read 12.3 GB of 12.4 GB, peak memory 5.1 GB, 61 s" on stderr.
void print_cost(uint64_t bytes_read, uint64_t size_bytes, double seconds);

}  // namespace quern::cli
