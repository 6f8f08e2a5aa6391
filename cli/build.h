#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "cli/cli.h"
#include "convert/build.h"
#include "convert/convert.h"
#include "convert/plan/plan.h"
#include "convert/plan/plan_options.h"
#include "formats/base/problems.h"
#include "formats/model/model_source.h"
#include "verify/calibrate/feedback.h"

namespace quern::cli {

// What the verbs that build GGUF files have in common: options, announcements, tables.

struct RunOptions {
  int threads = 0;        // 0: all that the process may use
  std::string memory;     // empty: the default budget
  std::string sync_size;  // empty: kSyncBytes
  bool dry_run = false;
  bool force = false;
  bool json = false;
};

// "Run" group: --threads, --memory, --dry-run, --force, --json.
void add_run_options(CLI::App& verb, RunOptions& options);
// --type, --recipe, --tensor-type, --effort, --tensors, --split-size of the "Output" group, --imatrix, --strict and those of error feedback
// of the "Quality" group.
struct OutputOptions {
  std::vector<std::string> types;
  std::vector<std::string> recipes;
  std::vector<std::string> tensor_types;
  std::string tensors;
  std::vector<std::string> skip;
  std::string split_size;
  std::string imatrix;
  FeedbackOptions feedback;
  std::string effort;
  bool strict = false;
};
void add_output_options(CLI::App& verb, OutputOptions& options);

// --skip of the "Input" group.
void add_skip_option(CLI::App& verb, std::vector<std::string>& skip);
void set_plan_options(const OutputOptions& output, const RunOptions& run, PlanOptions& plan);

void add_effort_option(CLI::App& verb, std::string& effort, const char* group);  // --effort
// --calib-text, --calib-tokens, --feedback, --statistics.
void add_feedback_options(CLI::App& verb, FeedbackOptions& options, const char* group);

// What open_build() needs, error feedback included. plan: as set_plan_options() left it.
BuildOptions build_options(const std::string& model, const ModelOptions& about, const PlanOptions& plan, const OutputOptions& output,
                           const RunOptions& run);

// Says on stderr what is wrong with an importance matrix for the model; nothing without one.
void print_findings(const std::filesystem::path& imatrix, const Importance& importance);

// Prints every problem; the exit code of the gravest kind of mistake: 2 when all are wrong usage, 3 otherwise. 0 without problems.
int report_problems(const std::vector<Problem>& problems);

// Both of these for what open_build() and its likes return.
int report_opened(const std::filesystem::path& imatrix, const OpenedBuild& opened);

// The first two lines on stderr, what will be read and what will be written, then the notes.
void announce(const ModelSource& source, const Plan& plan, const std::string& place);

// Results on stdout: a table, or "quern.convert/1" as JSON.
void print_plan(const Plan& plan, int threads, bool json);
void print_report(const ConvertReport& report, bool json);

}  // namespace quern::cli
