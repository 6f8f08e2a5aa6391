#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/cli.h"
#include "cli/feedback.h"
#include "convert/convert.h"
#include "convert/plan/plan.h"
#include "convert/plan/plan_options.h"
#include "formats/base/problems.h"
#include "formats/model/model_source.h"

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
  std::string split_size;
  std::string imatrix;
  FeedbackOptions feedback;
  std::string effort;
  bool strict = false;
};
void add_output_options(CLI::App& verb, OutputOptions& options);
void set_plan_options(const OutputOptions& output, const RunOptions& run, PlanOptions& plan);

// Prints every problem; the exit code of the gravest kind of mistake: 2 when all are wrong usage, 3 otherwise. 0 without problems.
int report_problems(const std::vector<Problem>& problems);

// Opens the model and makes the plan; what is wrong with the options and with the model is collected together.
struct OpenedPlan {
  std::unique_ptr<ModelSource> source;
  std::unique_ptr<Feedback> feedback;  // opens the statistics of calibration; nullptr without error feedback
  std::unique_ptr<Calibration> calibration = std::make_unique<Calibration>();  // where others may point to it
  std::optional<Plan> plan;
  std::vector<Problem> problems;
};
OpenedPlan open_and_plan(const std::filesystem::path& model, const ModelOptions& model_options, PlanOptions options,
                         const OutputOptions& output, const RunOptions& run);

// Makes the outputs of a plan of the opened model (the plan it has, or a part of its outputs), all from one reading of the model. With
// error feedback in sequential mode they are made one after the other, as each has activations of its own.
ConvertReport run_builds(OpenedPlan& opened, const Plan& plan, Progress& progress);

// Reads an importance matrix and matches it with the model; an empty path gives none. What is wrong with it is said on stderr, or with
// strict thrown (Importance::require_sound). The model must outlive the result.
Importance load_importance(const std::filesystem::path& imatrix, bool strict, const ModelSource& source);

// The first two lines on stderr, what will be read and what will be written, then the notes.
void announce(const ModelSource& source, const Plan& plan, const std::string& place);

// Results on stdout: a table, or "quern.convert/1" as JSON.
void print_plan(const Plan& plan, int threads, bool json);
void print_report(const ConvertReport& report, bool json);

}  // namespace quern::cli
