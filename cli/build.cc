#include "cli/build.h"

#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/evaluation.h"
#include "convert/fill/destination.h"
#include "convert/fill/journal.h"
#include "convert/plan/make_plan.h"
#include "convert/plan/memory.h"
#include "convert/plan/plan_checks.h"
#include "formats/base/resources.h"

namespace quern::cli {
namespace {

using nlohmann::ordered_json;

std::string plural(size_t n, const char* what) { return std::to_string(n) + " " + what + (n == 1 ? "" : "s"); }

double bits_per_weight(const Plan& plan, const PlannedOutput& output) {
  return 8.0 * static_cast<double>(output.tensor_bytes) / static_cast<double>(plan.n_weights());
}

uint64_t size_of(const PlannedOutput& output) {
  uint64_t size = 0;
  for (const PlannedFile& file : output.files) size += file.size_bytes;
  return size;
}

// "NAME.gguf", or "NAME-00001-of-00003.gguf (3 files)"
std::string shown_name(const std::string& first, size_t n_files) {
  return n_files == 1 ? first : first + " (" + std::to_string(n_files) + " files)";
}

ordered_json file_to_json(const FileReport& file) {
  return {{"name", file.name}, {"size_bytes", file.size_bytes}, {"sha256", file.sha256}};
}

ordered_json output_to_json(const OutputReport& output) {
  ordered_json files = ordered_json::array();
  for (const FileReport& file : output.files) files.push_back(file_to_json(file));
  return {{"type", output.mix},
          {"files", files},
          {"size_bytes", output.size_bytes},
          {"bits_per_weight", output.bits_per_weight},
          {"encode_seconds", output.encode_seconds},
          {"relative_error", output.relative_error},
          {"lossless", output.lossless},
          {"exact_tensors", output.exact_tensors},
          {"exact_weights", output.exact_weights}};
}

void print_plan_json(const Plan& plan, int threads) {
  ordered_json outputs = ordered_json::array();
  for (const PlannedOutput& output : plan.outputs) {
    ordered_json files = ordered_json::array();
    for (const PlannedFile& file : output.files) files.push_back({{"name", file.name}, {"size_bytes", file.size_bytes}});
    outputs.push_back(
        {{"type", output.mix}, {"files", files}, {"size_bytes", size_of(output)}, {"bits_per_weight", bits_per_weight(plan, output)}});
  }
  const ordered_json root = {{"schema", "quern.convert/1"},
                             {"dry_run", true},
                             {"outputs", outputs},
                             {"stored_bytes", plan.source_bytes()},
                             {"weights", plan.n_weights()},
                             {"memory_bytes", predicted_memory(plan, threads)},
                             {"memory_budget_bytes", plan.memory_bytes},
                             {"notes", plan.notes}};
  std::cout << root.dump(1) << '\n';
}

void print_report_json(const ConvertReport& report) {
  ordered_json outputs = ordered_json::array();
  for (const OutputReport& output : report.outputs) outputs.push_back(output_to_json(output));
  ordered_json root = {{"schema", "quern.convert/1"},
                       {"dry_run", false},
                       {"outputs", outputs},
                       {"stored_bytes", report.stored_bytes},
                       {"bytes_read", report.bytes_read},
                       {"seconds", report.seconds},
                       {"peak_memory_bytes", peak_resident_bytes()}};
  for (const auto& [tensor, outcome] : report.feedback) {
    root["feedback"].push_back({{"tensor", tensor},
                                {"type", name_of(outcome.dtype)},
                                {"rows", outcome.n_rows},
                                {"plain_rows", outcome.n_plain},
                                {"plain_error", outcome.plain_error},
                                {"error", outcome.error}});
  }
  std::cout << root.dump(1) << '\n';
}

// What error feedback did to the outputs of layers, over all tensors that had it; and those that mostly went without.
void print_feedback(const std::vector<FeedbackReport>& outcomes) {
  if (outcomes.empty()) return;
  double log_ratio = 0;
  int64_t n_measured = 0, n_rows = 0, n_plain = 0;
  for (const auto& [tensor, outcome] : outcomes) {
    n_rows += outcome.n_rows;
    n_plain += outcome.n_plain;
    if (2 * outcome.n_plain > outcome.n_rows) {
      print_warning("'" + tensor + "': error feedback did not help " + std::to_string(outcome.n_plain) + " of " +
                    std::to_string(outcome.n_rows) + " rows" + (outcome.n_unfactored > 0 ? ": no stable factor" : "") +
                    "; they are encoded without");
    }
    if (!(outcome.plain_error > 0 && outcome.error > 0)) continue;
    log_ratio += std::log(outcome.error / outcome.plain_error);
    ++n_measured;
  }
  const std::string ratio = n_measured > 0 ? number("%.3f", std::exp(log_ratio / static_cast<double>(n_measured))) : "1";
  std::cerr << "quern: feedback: " << outcomes.size() << " tensors, output error on held-out inputs times " << ratio << ", " << n_plain
            << " of " << n_rows << " rows without\n";
}

void print_report_table(const ConvertReport& report) {
  std::vector<std::vector<std::string>> rows = {{"file", "bpw", "size", "encode s", "error"}};
  for (const OutputReport& output : report.outputs) {
    rows.push_back({shown_name(output.files.front().name, output.files.size()), number("%.4f", output.bits_per_weight),
                    format_size(output.size_bytes), number("%.1f", output.encode_seconds),
                    output.relative_error == 0 ? "none" : number("%.2e", output.relative_error)});
  }
  std::cout << format_table(rows);
}

}  // namespace

void add_run_options(CLI::App& verb, RunOptions& options) {
  verb.add_option("--threads", options.threads, "1 to 1024; default: all the process may use")
      ->type_name("N")
      ->check([](const std::string& text) {
        int n = 0;
        return CLI::detail::lexical_cast(text, n) && n >= 1 && n <= 1024 ? "" : "must be a number from 1 to 1024";
      })
      ->group("Run");
  verb.add_option("--memory", options.memory, "as 4GiB; default: 2GiB or half of what is free")
      ->type_name("SIZE")
      ->check(a_size)
      ->group("Run");
  verb.add_option("--sync-size", options.sync_size, "")->type_name("SIZE")->check(a_size)->group("");  // for trials; docs/convert.md has it
  verb.add_flag("--dry-run", options.dry_run, "plan only")->group("Run");
  verb.add_flag("--force", options.force, "replace files")->group("Run");
  verb.add_flag("--json", options.json, "results as JSON")->group("Run");
}

void add_output_options(CLI::App& verb, OutputOptions& options) {
  verb.add_option("--type", options.types, "Q4_K_M, Q8_0, lossless ...; one file each")
      ->type_name("TYPE")
      ->allow_extra_args(false)
      ->group("Output");
  verb.add_option("--recipe", options.recipes, "dynamic-2bit ..., a JSON file, or a GGUF's own")
      ->type_name("RECIPE")
      ->allow_extra_args(false)
      ->group("Output");
  verb.add_option("--tensor-type", options.tensor_types, "another type for some; first match wins")
      ->type_name("REGEX=T")
      ->allow_extra_args(false)
      ->group("Output");
  CLI::Option* imatrix = verb.add_option("--imatrix", options.imatrix, "importance matrix; see 'quern imatrix'");
  imatrix->type_name("FILE")->group("Quality");
  verb.add_flag("--strict", options.strict, "refuse one with gaps; default: warn")->needs(imatrix)->group("Quality");
  add_feedback_options(verb, options.feedback, "Quality");
  verb.add_option("--effort", options.effort, "fast, default or best: depth of the search")
      ->type_name("WORD")
      ->check([](const std::string& text) { return find_effort(text) ? "" : "must be fast, default or best"; })
      ->group("Output");
  verb.add_option("--tensors", options.tensors, "")->type_name("REGEX")->group("");  // for trials; docs/convert.md has it
  verb.add_option("--split-size", options.split_size, "tensor bytes per file, as 45GB; default: all")
      ->type_name("SIZE")
      ->check(a_size)
      ->group("Output");
}

void set_plan_options(const OutputOptions& output, const RunOptions& run, PlanOptions& plan) {
  plan.types = output.types;
  for (const std::string& recipe : output.recipes) plan.recipes.push_back(load_recipe(recipe));
  plan.tensor_types = output.tensor_types;
  if (!output.tensors.empty()) plan.tensors = output.tensors;
  if (!output.split_size.empty()) plan.split_bytes = parse_size(output.split_size);
  plan.metadata_shard = true;
  if (!run.memory.empty()) plan.memory_bytes = parse_size(run.memory);
  plan.imatrix = output.imatrix;
  plan.statistics = output.feedback.statistics;
  if (!output.effort.empty()) plan.effort = find_effort(output.effort);
  if (!run.sync_size.empty()) plan.sync_bytes = parse_size(run.sync_size);
  plan.force = run.force;
}

int report_problems(const std::vector<Problem>& problems) {
  int code = 0;
  for (const Problem& problem : problems) {
    print_error(problem.message);
    code = std::max(code, exit_code(problem.kind));
  }
  return code;
}

Importance load_importance(const std::filesystem::path& imatrix, bool strict, const ModelSource& source) {
  if (imatrix.empty()) return {};
  Importance importance(read_imatrix(imatrix), source.tensors());
  if (strict) importance.require_sound();
  for (const ImportanceFinding& finding : importance.findings()) {
    const std::string message = printable(imatrix.filename().string()) + ": " + finding.message;
    if (finding.serious) {
      print_warning(message);
    } else {
      std::cerr << "quern: note: " << message << '\n';
    }
  }
  return importance;
}

namespace {

// Running the model gets three quarters of the memory, as its layers are the larger part; what else is done goes on beside it.
uint64_t memory_of_feedback(const RunOptions& run, PlanOptions& options) {
  if (run.memory.empty()) return eval_options({}).memory_bytes;
  options.memory_bytes /= 4;
  return options.memory_bytes * 3;
}

// The types that the build gives the tensors of the model; those it leaves out stay as they are.
std::vector<DType> types_of_build(const ModelSource& source, const Plan& plan, const PlannedOutput& output) {
  std::vector<DType> types;
  for (const LogicalTensor& tensor : source.tensors()) types.push_back(tensor.source_type);
  for (size_t t = 0; t < plan.tensors.size(); ++t) types[plan.tensors[t].source_index] = output.tensors[t].type;
  return types;
}

}  // namespace

OpenedPlan open_and_plan(const std::filesystem::path& model, const ModelOptions& model_options, PlanOptions options,
                         const OutputOptions& output, const RunOptions& run) {
  OpenedPlan opened;
  try {
    opened.source = open_model(model, model_options);
    opened.calibration->importance = load_importance(options.imatrix, output.strict, *opened.source);
    if (!options.imatrix.empty()) options.importance = &opened.calibration->importance;
    if (output.feedback.wanted()) {
      const uint64_t memory = output.feedback.live() ? memory_of_feedback(run, options) : 0;
      opened.feedback = std::make_unique<Feedback>(output.feedback, *opened.source, model, memory);
      opened.calibration->feedback = opened.feedback->open();
      options.feedback = opened.calibration->feedback.get();
      options.one_by_one = opened.feedback->follows();
    }
    opened.plan = make_plan(*opened.source, model, options, opened.problems);
    check_files(*opened.plan, *opened.source, opened.problems);
    if (opened.feedback && !opened.feedback->note().empty()) opened.plan->notes.push_back(opened.feedback->note());
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInternal || error.kind() == ErrorKind::kInterrupted) throw;
    opened.plan.reset();
    opened.problems = check_options(options);
    opened.problems.push_back({error.kind(), error.what()});
  }
  return opened;
}

ConvertReport run_builds(OpenedPlan& opened, const Plan& plan, Progress& progress) {
  if (opened.feedback) opened.feedback->tell(progress);
  if (!opened.feedback || !opened.feedback->follows()) return run_plan(*opened.source, plan, progress, *opened.calibration);
  ConvertReport all;
  const std::vector<Plan> runs = runs_of(plan);
  for (const Plan& run : runs) {
    opened.calibration->feedback = opened.feedback->open();
    opened.feedback->follow(types_of_build(*opened.source, run, run.outputs.front()), &opened.calibration->importance, plan.effort);
    ConvertReport report = run_plan(*opened.source, run, progress, *opened.calibration, AtEnd::kRemember);
    std::ranges::move(report.outputs, std::back_inserter(all.outputs));
    std::ranges::move(report.feedback, std::back_inserter(all.feedback));
    all.stored_bytes = report.stored_bytes;
    all.bytes_read += report.bytes_read;
    all.seconds += report.seconds;
  }
  for (const Plan& run : runs) forget_run(run);
  return all;
}

void announce(const ModelSource& source, const Plan& plan, const std::string& place) {
  const std::string arch = source.metadata().find_string("general.architecture").value_or("model");
  std::cerr << "quern: reading " << printable(plan.model.string()) << ": " << arch << ", " << plural(plan.tensors.size(), "tensor") << ", "
            << format_size(plan.source_bytes()) << " in " << plural(plan.sources.size(), "file") << '\n';
  size_t n_files = 0;
  std::string types;
  for (const PlannedOutput& output : plan.outputs) {
    n_files += output.files.size();
    types += (types.empty() ? "" : ", ") + output.mix;
  }
  std::cerr << "quern: writing " << printable(place) << ": " << plural(n_files, "file") << ", " << format_size(plan.output_bytes()) << " ("
            << types << ")\n";
  if (const uint64_t begun = begun_bytes(plan); begun > 0) {
    std::cerr << "quern: going on from an earlier run, which wrote " << format_size(begun) << '\n';
  }
  for (const std::string& note : plan.notes) std::cerr << "quern: note: " << note << '\n';
}

void print_plan(const Plan& plan, int threads, bool json) {
  if (json) return print_plan_json(plan, threads);
  std::vector<std::vector<std::string>> rows = {{"file", "bpw", "size", "bytes"}};
  for (const PlannedOutput& output : plan.outputs) {
    rows.push_back({shown_name(output.files.front().name, output.files.size()), number("%.4f", bits_per_weight(plan, output)),
                    format_size(size_of(output)), std::to_string(size_of(output))});
  }
  std::cout << format_table(rows);
  std::cerr << "quern: would use at most " << format_size(predicted_memory(plan, threads)) << " of memory; nothing was written\n";
}

void print_report(const ConvertReport& report, bool json) {
  for (const OutputReport& output : report.outputs) {
    if (!output.lossless) continue;
    std::cerr << "quern: lossless: proved " << output.exact_tensors << " tensors, " << output.exact_weights << " weights, bit for bit\n";
  }
  std::cerr << "quern: read " << report.bytes_read << " of " << report.stored_bytes << " stored bytes in " << number("%.1f", report.seconds)
            << " s, peak memory " << format_size(peak_resident_bytes()) << '\n';
  print_feedback(report.feedback);
  if (json) return print_report_json(report);
  print_report_table(report);
}

}  // namespace quern::cli
