#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/evaluation.h"
#include "cli/progress_bar.h"
#include "formats/base/parallel.h"
#include "formats/base/resources.h"
#include "formats/model/model_facts.h"
#include "formats/statistics/imatrix_coverage.h"
#include "formats/statistics/importance.h"
#include "verify/calibrate/collect.h"

namespace quern::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

struct ImatrixOptions {
  std::string model;
  std::string show;
  std::vector<std::string> merge;
  std::string output;
  std::string format = "gguf";
  bool force = false;
  bool strict = false;
  EvaluationOptions evaluation;
};

ImatrixFormat parse_format(const std::string& text) {
  if (text == "gguf") return ImatrixFormat::kGguf;
  if (text == "dat") return ImatrixFormat::kDat;
  throw Error(ErrorKind::kUsage, "--format '" + printable(text) + "' is not gguf or dat");
}

const char* name_of(ImatrixFormat format) { return format == ImatrixFormat::kGguf ? "gguf" : "dat"; }

int64_t median(std::vector<int64_t> values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

std::string layer_name(const LayerCoverage& layer) { return layer.layer < 0 ? "outside" : std::to_string(layer.layer); }

std::vector<std::string> coverage_row(const LayerCoverage& layer) {
  std::vector<std::string> row = {layer_name(layer), std::to_string(layer.n_entries), std::to_string(layer.n_rows)};
  const auto n_seen = std::ranges::count_if(layer.experts, [](int64_t rows) { return rows > 0; });
  if (layer.experts.empty()) {
    row.insert(row.end(), {"-", "-", "-", "-"});
  } else {
    const auto [fewest, most] = std::ranges::minmax(layer.experts);
    row.insert(row.end(), {std::to_string(n_seen) + "/" + std::to_string(layer.experts.size()), std::to_string(fewest),
                           std::to_string(median(layer.experts)), std::to_string(most)});
  }
  const double unused = layer.n_values == 0 ? 0.0 : 100.0 * static_cast<double>(layer.n_unused) / static_cast<double>(layer.n_values);
  row.push_back(number("%.2f %%", unused));
  row.push_back(std::to_string(layer.n_not_finite));
  return row;
}

// "4: 7, 12" for every layer with experts that were never seen.
void print_unseen(const std::vector<LayerCoverage>& layers) {
  for (const LayerCoverage& layer : layers) {
    std::string unseen;
    for (size_t e = 0; e < layer.experts.size(); ++e) {
      if (layer.experts[e] == 0) unseen += (unseen.empty() ? "" : ", ") + std::to_string(e);
    }
    if (!unseen.empty()) std::cout << "layer " << layer.layer << ": never seen: experts " << unseen << '\n';
  }
}

ordered_json coverage_json(const LayerCoverage& layer) {
  ordered_json entry = {{"layer", layer.layer < 0 ? ordered_json() : ordered_json(layer.layer)},
                        {"entries", layer.n_entries},
                        {"rows", layer.n_rows},
                        {"columns", layer.n_values},
                        {"columns_unused", layer.n_unused},
                        {"columns_not_finite", layer.n_not_finite}};
  if (!layer.experts.empty()) entry["expert_rows"] = layer.experts;
  return entry;
}

ordered_json to_json(const Imatrix& imatrix) {
  ordered_json root = {{"schema", "quern.imatrix/1"},       {"file", imatrix.file_name},    {"sha256", imatrix.sha256},
                       {"format", name_of(imatrix.format)}, {"datasets", imatrix.datasets}, {"chunks", imatrix.chunk_count},
                       {"chunk_size", imatrix.chunk_size}};
  root["layers"] = ordered_json::array();
  for (const LayerCoverage& layer : coverage_of(imatrix)) root["layers"].push_back(coverage_json(layer));
  root["entries"] = ordered_json::array();
  for (const ImatrixEntry& entry : imatrix.entries) {
    root["entries"].push_back({{"name", entry.name}, {"columns", entry.n_columns}, {"slices", entry.n_slices}});
  }
  return root;
}

void print_coverage(const Imatrix& imatrix) {
  const std::vector<LayerCoverage> layers = coverage_of(imatrix);
  std::vector<std::vector<std::string>> rows = {
      {"layer", "entries", imatrix.counts_are_chunks() ? "chunks" : "rows", "experts", "fewest", "median", "most", "unused", "not finite"}};
  for (const LayerCoverage& layer : layers) rows.push_back(coverage_row(layer));
  std::cout << format_table(rows);
  print_unseen(layers);
}

// Says what is wrong with the matrix for this model; the exit code.
int judge(const Importance& importance, bool strict) {
  bool serious = false;
  for (const ImportanceFinding& finding : importance.findings()) {
    serious = serious || finding.serious;
    if (finding.serious) {
      print_warning(finding.message);
    } else {
      std::clog << "quern: note: " << finding.message << '\n';
    }
  }
  return strict && serious ? exit_code(ErrorKind::kGate) : 0;
}

int report(Imatrix imatrix, const ModelSource* source, const ImatrixOptions& options) {
  ordered_json root;
  if (options.evaluation.json) {
    root = to_json(imatrix);
  } else {
    print_coverage(imatrix);
  }
  int code = 0;
  if (source != nullptr) {
    const Importance importance(std::move(imatrix), source->tensors());
    for (const ImportanceFinding& finding : importance.findings()) {
      root["findings"].push_back({{"serious", finding.serious}, {"message", finding.message}});
    }
    code = judge(importance, options.strict);
  }
  if (options.evaluation.json) std::cout << root.dump(1) << '\n';
  return code;
}

int show(const ImatrixOptions& options) {
  Imatrix imatrix = read_imatrix(options.show);
  std::unique_ptr<ModelSource> source;
  if (!options.model.empty()) source = open_model(options.model);
  if (!options.evaluation.json) {
    std::string texts;
    for (const std::string& dataset : imatrix.datasets) texts += (texts.empty() ? "" : ", ") + printable(dataset);
    std::cout << printable(imatrix.file_name) << ": " << name_of(imatrix.format) << ", " << imatrix.entries.size() << " entries, "
              << imatrix.chunk_count << " chunks";
    if (imatrix.chunk_size > 0) std::cout << " of " << imatrix.chunk_size << " tokens";
    std::cout << (texts.empty() ? "" : " of " + texts) << '\n';
  }
  return report(std::move(imatrix), source.get(), options);
}

void check_output(const ImatrixOptions& options) {
  if (options.output.empty()) throw Error(ErrorKind::kUsage, "no output given; -o FILE names it");
  check_output_path(options.output, options.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse);
}

void write(const Imatrix& imatrix, const ImatrixOptions& options) {
  write_imatrix(imatrix, parse_format(options.format), options.output,
                options.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse);
}

int merge(const ImatrixOptions& options) {
  check_output(options);
  parse_format(options.format);
  for (size_t i = 0; i < options.merge.size(); ++i) {
    for (size_t k = 0; k < i; ++k) {
      std::error_code absent;
      if (fs::equivalent(options.merge[i], options.merge[k], absent))
        throw Error(ErrorKind::kUsage, "is given twice").file(options.merge[i]);
    }
  }
  std::clog << "quern: reading " << options.merge.size() << " importance matrices\n";
  std::vector<Imatrix> parts;
  for (const std::string& path : options.merge) parts.push_back(read_imatrix(path));
  Imatrix merged = merge_imatrices(parts);
  std::clog << "quern: writing " << printable(options.output) << ": " << merged.entries.size() << " entries, " << merged.chunk_count
            << " chunks\n";
  if (std::ranges::any_of(parts, &Imatrix::counts_are_chunks)) {
    print_warning("a .dat does not say how often each expert was seen; all its experts count alike");
  }
  write(merged, options);
  return report(std::move(merged), nullptr, options);
}

int collect(const ImatrixOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  if (options.model.empty()) throw Error(ErrorKind::kUsage, "no model given; name one, or --merge or --show files");
  if (options.evaluation.text.empty()) throw Error(ErrorKind::kUsage, "no text given; --calib-text FILE names it");
  check_output(options);
  parse_format(options.format);
  const ThreadLimit limit(options.evaluation.threads);
  const std::unique_ptr<ModelSource> source = open_model(options.model);
  const ChunkedText text = load_text(*source, text_options(options.evaluation));
  ImatrixRun run(*source, eval_options(options.evaluation));
  const EvalPlan plan = run.plan(text.chunks);
  announce_evaluation(*source, options.model, options.evaluation, text, plan);
  std::clog << "quern: writing " << printable(options.output) << ", sums in " << format_size(run.sums_bytes()) << " of memory\n";
  if (options.evaluation.dry_run) {
    std::cout << (options.evaluation.json ? plans_to_json("quern.imatrix/1", {{options.model, plan}}) : plan_table(plan));
    return 0;
  }
  ProgressBar bar;
  Imatrix imatrix = run.collect(text, fs::path(options.evaluation.text).filename().string(), bar);
  write(imatrix, options);
  const int code = report(std::move(imatrix), source.get(), options);
  print_cost(source->bytes_read(), size_on_disk(*source), std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return code;
}

int run_imatrix(const ImatrixOptions& options) {
  const bool merging = !options.merge.empty(), showing = !options.show.empty();
  if (merging && (showing || !options.evaluation.text.empty()))
    throw Error(ErrorKind::kUsage, "--merge, --show and --calib-text exclude each other");
  if (showing && !options.evaluation.text.empty()) throw Error(ErrorKind::kUsage, "--show and --calib-text exclude each other");
  if (showing) return show(options);
  return merging ? merge(options) : collect(options);
}

}  // namespace

void add_imatrix(CLI::App& app, Context& context) {
  const auto options = std::make_shared<ImatrixOptions>();
  EvaluationOptions& evaluation = options->evaluation;
  CLI::App* verb = app.add_subcommand("imatrix", "Collect what matters in the inputs of each weight");
  verb->group("Measure")->footer("quern imatrix DeepSeek-V4-Flash --calib-text calib.txt -o imatrix.gguf");
  verb->add_option("MODEL", options->model, "checkpoint folder or (first) GGUF file")->group("Input");
  verb->add_option("--merge", options->merge, "add up matrices of several texts instead")->type_name("FILE")->group("Input");
  verb->add_option("--show", options->show, "report on one, with MODEL: for that model")->type_name("FILE")->group("Input");
  verb->add_option("--calib-text", evaluation.text, "text to run through the model")->type_name("FILE")->group("Text");
  verb->add_option("--ctx", evaluation.ctx, "tokens per chunk, 4 or more; default 512")->type_name("N")->group("Text");
  verb->add_option("--chunks", evaluation.chunks, "use the first N only; default all")->type_name("N")->check(at_least_one)->group("Text");
  verb->add_option("-o,--output", options->output, "the matrix to write")->type_name("FILE")->group("Output");
  verb->add_option("--format", options->format, "gguf or dat (means only); default gguf")->type_name("F")->group("Output");
  verb->add_flag("--force", options->force, "replace the file")->group("Output");
  verb->add_flag("--strict", options->strict, "exit 1 if it has gaps")->group("Output");
  verb->add_option("--threads", evaluation.threads, "1 or more; default all of them")->type_name("N")->check(at_least_one)->group("Run");
  verb->add_option("--memory", evaluation.memory, "budget, as 6GiB; default up to 8GiB")->type_name("SIZE")->check(a_size)->group("Run");
  verb->add_flag("--dry-run", evaluation.dry_run, "show the plan only")->group("Run");
  verb->add_flag("--json", evaluation.json, "results as JSON")->group("Run");
  verb->callback([options, &context] { context.command = [options] { return run_imatrix(*options); }; });
}

}  // namespace quern::cli
