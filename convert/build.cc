#include "convert/build.h"

#include <algorithm>
#include <iterator>

#include "convert/fill/destination.h"
#include "convert/plan/make_plan.h"
#include "convert/plan/memory.h"
#include "convert/plan/plan_checks.h"
#include "convert/plan/planned_build.h"
#include "formats/base/error.h"
#include "formats/model/model_kind.h"
#include "formats/model/skip.h"

namespace quern {
namespace {

// What is wrong with a model or with what was measured of it stands beside the problems of planning. Called in a catch block.
Problem problem_of(const Error& error) {
  if (error.kind() == ErrorKind::kInternal || error.kind() == ErrorKind::kInterrupted) throw;
  return {error.kind(), error.what()};
}

}  // namespace

OpenedBuild open_build(const BuildOptions& options) {
  OpenedBuild opened;
  PlanOptions plan = options.plan;
  try {
    opened.source = open_model(options.model, options.about, plan.skip);
    require_model(*opened.source);
    opened.calibration.importance = load_importance(plan.imatrix, options.strict, *opened.source);
    if (options.feedback) {
      opened.feedback = options.feedback(*opened.source);
      opened.calibration.feedback = opened.feedback->open();
      plan.one_by_one = opened.feedback->follows();
    }
    opened.plan = make_plan(*opened.source, options.model, plan, opened.problems, opened.calibration);
    check_files(*opened.plan, *opened.source, opened.problems);
    if (opened.feedback && !opened.feedback->note().empty()) opened.plan->notes.push_back(opened.feedback->note());
  } catch (const Error& error) {
    const Problem problem = problem_of(error);
    opened.plan.reset();
    opened.problems = check_options(plan);
    opened.problems.push_back(problem);
  }
  return opened;
}

OpenedBuild open_planned(const Plan& plan, bool strict, bool part) {
  OpenedBuild opened;
  try {
    ModelOptions about;
    about.mtp = plan.mtp;
    opened.source = open_model(plan.model, about, recorded_skip(plan.outputs.front().metadata));
    check_source(plan, *opened.source);
    opened.calibration.importance = load_importance(plan.imatrix_path, strict, *opened.source);
    opened.calibration.feedback = open_feedback(plan.statistics_path, opened.source->tensors());
    check_calibration(plan, opened.calibration);
    check_memory(plan, plan.base_bytes + plan.chunk_bytes, opened.problems);
    if (!part) check_files(plan, *opened.source, opened.problems);
    opened.plan = plan;
  } catch (const Error& error) {
    opened.problems.push_back(problem_of(error));
  }
  return opened;
}

ConvertReport run_build(OpenedBuild& opened, const Plan& plan, Progress& progress) {
  if (opened.feedback) opened.feedback->tell(progress);
  if (!opened.feedback || !opened.feedback->follows()) return run_plan(*opened.source, plan, progress, opened.calibration);
  ConvertReport all;
  const std::vector<Plan> runs = runs_of(plan);
  for (const Plan& run : runs) {
    opened.calibration.feedback = opened.feedback->open();
    opened.feedback->follow(types_of_build(*opened.source, run, run.outputs.front()), &opened.calibration.importance, plan.effort);
    ConvertReport report = run_plan(*opened.source, run, progress, opened.calibration, AtEnd::kRemember);
    std::ranges::move(report.outputs, std::back_inserter(all.outputs));
    std::ranges::move(report.feedback, std::back_inserter(all.feedback));
    all.zero_tensors = std::move(report.zero_tensors);
    all.stored_bytes = report.stored_bytes;
    all.bytes_read += report.bytes_read;
    all.seconds += report.seconds;
  }
  for (const Plan& run : runs) forget_run(run);
  all.notes = plan.notes;
  all.warnings = plan.warnings;
  return all;
}

}  // namespace quern
