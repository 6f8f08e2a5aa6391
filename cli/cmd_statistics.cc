#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/evaluation.h"
#include "cli/progress_bar.h"
#include "formats/base/parallel.h"
#include "formats/base/resources.h"
#include "formats/base/sha256.h"
#include "formats/imatrix.h"
#include "formats/statistics.h"
#include "runtime/imatrix_collector.h"
#include "runtime/moment_collector.h"

namespace quern::cli {
namespace {

namespace fs = std::filesystem;

struct StatisticsOptions {
  std::string model;
  std::string output;
  int64_t tokens = 131072;
  bool force = false;
  EvaluationOptions evaluation;
};

// Both collections from one pass.
class BothCollectors final : public ActivationObserver {
 public:
  BothCollectors(ImatrixCollector& imatrix, MomentCollector& moments) : imatrix_(imatrix), moments_(moments) {}
  void observe(const ObservedInput& input) override {
    imatrix_.observe(input);
    moments_.observe(input);
  }

 private:
  ImatrixCollector& imatrix_;
  MomentCollector& moments_;
};

// Weights that block types can hold; the others are never quantized.
bool has_block_rows(const TensorIndex& index, std::string_view weight) {
  const LogicalTensor* tensor = index.find(weight);
  return tensor != nullptr && tensor->shape.rank() >= 2 && tensor->shape.row_length() % 32 == 0;
}

int run_statistics(const StatisticsOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const ThreadLimit limit(threads_of(options.evaluation));
  const std::unique_ptr<ModelSource> source = open_model(options.model);
  EvaluationOptions evaluation = options.evaluation;
  if (options.tokens < 1) throw Error(ErrorKind::kUsage, "--calib-tokens " + std::to_string(options.tokens) + " is not 1 or more");
  evaluation.chunks = (options.tokens + evaluation.ctx - 1) / evaluation.ctx;
  const ChunkedText text = load_chunks(*source, evaluation);
  EvalOptions eval = eval_options(evaluation);
  const auto overwrite = options.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse;
  const TensorIndex index(*source);
  StatisticsWriter writer(options.output, overwrite);
  ImatrixCollector imatrix(source->tensors());
  MomentCollector moments(writer, [&](std::string_view weight) { return has_block_rows(index, weight); });
  BothCollectors both(imatrix, moments);
  eval.observer = &both;
  Evaluator evaluator(*source, eval);
  const EvalPlan plan = evaluator.plan(text.chunks);
  announce_evaluation(*source, options.model, evaluation, text, plan);
  if (evaluation.dry_run) {
    std::cout << plan_table(plan);
    return 0;
  }
  ProgressBar bar;
  evaluator.start(text.chunks);
  evaluator.embed();
  evaluator.run_layers(0, evaluator.hparams().n_layers, bar);
  evaluator.finish("output_norm.weight");
  moments.finish();

  const std::string text_name = fs::path(evaluation.text).filename().string();
  Imatrix found = imatrix.take();
  found.datasets = {text_name};
  found.chunk_count = static_cast<int64_t>(text.chunks.size());
  found.chunk_size = evaluation.ctx;
  write_imatrix(found, ImatrixFormat::kGguf, fs::path(options.output) / "imatrix.gguf", overwrite);
  StatisticsRecord record;
  record.model = shown_name(options.model);
  record.text = text_name;
  record.text_sha256 = sha256_hex(read_file(evaluation.text, uint64_t{1} << 32));
  record.mode = "original";
  record.ctx = evaluation.ctx;
  record.n_tokens = evaluator.n_rows();
  writer.finish(record);
  print_cost(source->bytes_read(), size_on_disk(*source), std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return 0;
}

}  // namespace

void add_statistics(CLI::App& app, Context& context) {
  const auto options = std::make_shared<StatisticsOptions>();
  CLI::App* verb = app.add_subcommand("statistics", "Collect what --feedback needs to know of a text");
  verb->group("Measure")->footer("quern statistics DeepSeek-V4-Flash --calib-text calib.txt -o stats");
  verb->add_option("MODEL", options->model, "checkpoint folder or (first) GGUF file")->required()->group("Input");
  verb->add_option("--calib-text", options->evaluation.text, "text to run")->type_name("FILE")->required()->group("Text");
  verb->add_option("--calib-tokens", options->tokens, "use the first N; default 131072")->type_name("N")->group("Text");
  verb->add_option("--ctx", options->evaluation.ctx, "tokens per chunk, 4 or more; default 512")->type_name("N")->group("Text");
  verb->add_option("-o,--output", options->output, "where statistics.json goes")->type_name("FOLDER")->required()->group("Output");
  verb->add_flag("--force", options->force, "replace what is there")->group("Output");
  verb->add_option("--threads", options->evaluation.threads, "1 or more; default all of them")->type_name("N")->group("Run");
  verb->add_option("--memory", options->evaluation.memory, "budget, as 6GiB; default up to 8GiB")->type_name("SIZE")->group("Run");
  verb->add_flag("--dry-run", options->evaluation.dry_run, "show the plan only")->group("Run");
  verb->callback([options, &context] { context.command = [options] { return run_statistics(*options); }; });
}

}  // namespace quern::cli
