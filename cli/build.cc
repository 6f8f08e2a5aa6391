#include "cli/build.h"

#include <algorithm>
#include <cmath>
#include <iostream>

#include "convert/fill/journal.h"
#include "convert/plan/memory.h"
#include "convert/plan/planned_build.h"
#include "convert/report_json.h"
#include "formats/base/counted.h"
#include "formats/base/resources.h"
#include "verify/drift/chunked_text.h"

namespace quern::cli {
namespace {

// "NAME.gguf", or "NAME-00001-of-00003.gguf (3 files)"
std::string shown_name(const std::string& first, size_t n_files) {
  return n_files == 1 ? first : first + " (" + std::to_string(n_files) + " files)";
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
  const double ratio = n_measured > 0 ? std::exp(log_ratio / static_cast<double>(n_measured)) : 1;
  std::clog << "quern: feedback: the outputs of " << counted(outcomes.size(), "tensor") << " have " << number("%.0f", 100 * ratio)
            << " % of the error that plain encoding leaves; " << n_plain << " of " << counted(n_rows, "row") << " are encoded plainly\n";
}

constexpr size_t kShown = 4;  // warnings of one kind

// Weights that the types of an output could not hold.
void print_cuts(const OutputReport& output) {
  for (size_t i = 0; i < std::min(kShown, output.cuts.size()); ++i) {
    const auto& [tensor, type, cut] = output.cuts[i];
    print_warning(output.mix + ": '" + tensor + "' as " + std::string(name_of(type)) + ": " +
                  counted(static_cast<uint64_t>(cut.n), "weight") + " beyond 65504, the range of F16, " + (cut.n == 1 ? "is" : "are") +
                  " cut; the largest is " + number("%.3g", cut.largest) + "; --tensor-type REGEX=BF16 keeps such a tensor");
  }
  if (output.cuts.size() > kShown)
    print_warning(output.mix + ": weights of " + std::to_string(output.cuts.size() - kShown) + " more tensors are cut; --json names them");
}

void print_zero_tensors(const std::vector<std::string>& names) {
  if (names.empty()) return;
  std::string list;
  for (size_t i = 0; i < std::min(kShown, names.size()); ++i) list += (i == 0 ? "" : ", ") + names[i];
  if (names.size() > kShown) list += " and " + std::to_string(names.size() - kShown) + " more";
  print_warning("every weight is zero in the source: " + list + " (a damaged download? 'quern doctor' tells more)");
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
  verb.add_option("--sync-size", options.sync_size, "bytes between two syncs of a file")->type_name("SIZE")->check(a_size)->group("");
  verb.add_flag("--dry-run", options.dry_run, "plan only")->group("Run");
  verb.add_flag("--force", options.force, "replace files")->group("Run");
  verb.add_flag("--json", options.json, "results as JSON")->group("Run");
}

void add_effort_option(CLI::App& verb, std::string& effort, const char* group) {
  verb.add_option("--effort", effort, "fast, default or best: depth of the search")
      ->type_name("WORD")
      ->check([](const std::string& text) { return find_effort(text) ? "" : "'" + text + "' is not fast, default or best"; })
      ->group(group);
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
  CLI::Option* imatrix = verb.add_option("--imatrix", options.imatrix, "importance matrix, of 'quern imatrix'");
  imatrix->type_name("FILE")->group("Quality");
  verb.add_flag("--strict", options.strict, "refuse an importance matrix with gaps")->needs(imatrix)->group("");
  add_feedback_options(verb, options.feedback, "Quality");
  add_effort_option(verb, options.effort, "Output");
  verb.add_option("--tensors", options.tensors, "write these only, for trials")->type_name("REGEX")->group("");
  verb.add_option("--split-size", options.split_size, "tensor bytes per file, as 45GB; default: all")
      ->type_name("SIZE")
      ->check(a_size)
      ->group("Output");
}

void add_skip_option(CLI::App& verb, std::vector<std::string>& skip) {
  verb.add_option("--skip", skip, "leave out stored tensors without a use")->type_name("REGEX")->allow_extra_args(false)->group("Input");
}

void set_plan_options(const OutputOptions& output, const RunOptions& run, PlanOptions& plan) {
  plan.types = output.types;
  for (const std::string& recipe : output.recipes) plan.recipes.push_back(load_recipe(recipe));
  plan.tensor_types = output.tensor_types;
  if (!output.tensors.empty()) plan.tensors = output.tensors;
  plan.skip = output.skip;
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

void add_feedback_options(CLI::App& verb, FeedbackOptions& options, const char* group) {
  verb.add_option("--calib-text", options.text, "to encode by; --calib-tokens N, else 131072")->type_name("FILE")->group(group);
  verb.add_option("--calib-tokens", options.tokens, "use its first N; default 131072")->type_name("N")->check(at_least_one)->group("");
  verb.add_option("--feedback", options.mode, "on (default with a text), sequential, off")
      ->type_name("MODE")
      ->check([](const std::string& text) {
        return text == "on" || text == "off" || text == "sequential" ? "" : "'" + text + "' is not on, off or sequential";
      })
      ->group(group);
  verb.add_option("--statistics", options.statistics, "from what 'quern statistics' wrote")->type_name("FOLDER")->group(group);
}

void check_feedback(const FeedbackOptions& options) {
  if (options.mode != "off") return;
  const char* unused = !options.statistics.empty() ? "--statistics" : !options.text.empty() ? "--calib-text" : nullptr;
  if (unused == nullptr) return;
  throw Error(ErrorKind::kUsage, std::string("--feedback off leaves no use for ") + unused +
                                     "; for importance alone give what 'quern imatrix' makes of the text as --imatrix");
}

BuildOptions build_options(const std::string& model, const ModelOptions& about, const PlanOptions& plan, const OutputOptions& output,
                           const RunOptions& run) {
  BuildOptions build{.model = model, .about = about, .plan = plan, .strict = output.strict, .feedback = {}};
  check_feedback(output.feedback);
  if (!output.feedback.wanted()) return build;
  uint64_t memory = 0;
  if (output.feedback.live() && run.memory.empty()) {
    memory = default_evaluation_memory();
  } else if (output.feedback.live()) {
    // Running the model gets three quarters of the memory, as its layers are the larger part; what else is done goes on beside it.
    build.plan.memory_bytes /= 4;
    memory = build.plan.memory_bytes * 3;
  }
  if (output.feedback.collected.empty()) build.plan.beside_bytes = memory;
  build.feedback = [options = output.feedback, model, memory](const ModelSource& source) {
    return make_feedback(options, source, model, memory);
  };
  return build;
}

void print_findings(const std::filesystem::path& imatrix, const Importance& importance) {
  for (const ImportanceFinding& finding : importance.findings()) {
    const std::string message = printable(imatrix.filename().string()) + ": " + finding.message;
    if (finding.serious) {
      print_warning(message);
    } else {
      std::clog << "quern: note: " << message << '\n';
    }
  }
}

int report_opened(const std::filesystem::path& imatrix, const OpenedBuild& opened) {
  print_findings(imatrix, opened.calibration.importance);
  return report_problems(opened.problems);
}

void announce(const ModelSource& source, const Plan& plan, const std::string& place) {
  const std::string arch = source.metadata().find_string("general.architecture").value_or("model");
  std::clog << "quern: reading " << printable(plan.model.string()) << ": " << arch << ", " << counted(plan.tensors.size(), "tensor") << ", "
            << format_size(plan.source_bytes()) << " in " << counted(plan.sources.size(), "file") << '\n';
  size_t n_files = 0;
  std::string types;
  for (const PlannedOutput& output : plan.outputs) {
    n_files += output.files.size();
    types += (types.empty() ? "" : ", ") + output.mix;
  }
  std::clog << "quern: writing " << printable(place) << ": " << counted(n_files, "file") << ", " << format_size(plan.output_bytes()) << " ("
            << types << ")\n";
  if (const uint64_t begun = begun_bytes(plan); begun > 0) {
    std::clog << "quern: going on from an earlier run, which wrote " << format_size(begun) << '\n';
  }
  for (const std::string& note : plan.notes) std::clog << "quern: note: " << note << '\n';
  for (const std::string& warning : plan.warnings) print_warning(warning);
}

void print_plan(const Plan& plan, int threads, bool json) {
  if (json) {
    std::cout << forecast_to_json(plan, threads);
    return;
  }
  std::vector<std::vector<std::string>> rows = {{"file", "bpw", "size", "bytes"}};
  for (const PlannedOutput& output : plan.outputs) {
    rows.push_back({shown_name(output.files.front().name, output.files.size()), number("%.4f", bits_per_weight(plan, output)),
                    format_size(size_of(output)), std::to_string(size_of(output))});
  }
  std::cout << format_table(rows);
  std::clog << "quern: would use at most " << format_size(predicted_memory(plan, threads)) << " of memory; nothing was written\n";
}

void print_report(const ConvertReport& report, bool json) {
  for (const OutputReport& output : report.outputs) {
    if (!output.lossless) continue;
    std::clog << "quern: lossless: proved " << output.exact_tensors << " tensors, " << output.exact_weights << " weights, bit for bit\n";
  }
  std::clog << "quern: read " << amount_read(report.bytes_read, report.stored_bytes) << " in " << number("%.1f", report.seconds)
            << " s, peak memory " << format_size(peak_resident_bytes()) << '\n';
  print_feedback(report.feedback);
  for (const OutputReport& output : report.outputs) print_cuts(output);
  print_zero_tensors(report.zero_tensors);
  if (json) {
    std::cout << report_to_json(report);
  } else {
    print_report_table(report);
  }
}

}  // namespace quern::cli
