#include <algorithm>
#include <cmath>
#include <iostream>
#include <memory>
#include <random>

#include "cli/evaluation.h"
#include "formats/base/counted.h"
#include "formats/base/parallel.h"
#include "formats/base/progress.h"

namespace quern::cli {
namespace {

struct RunVerbOptions {
  std::string model;
  std::string prompt;
  int64_t n = 64;
  double temperature = 0.0;
  uint64_t seed = 1;
  bool special = false;
  EvaluationOptions evaluation;
};

// Greedy at temperature 0; otherwise drawn from the softmax by a generator whose sequence the C++ standard fixes.
int32_t pick(std::span<const float> logits, double temperature, std::mt19937_64& random) {
  const auto best = std::ranges::max_element(logits);
  if (temperature <= 0.0) return static_cast<int32_t>(best - logits.begin());
  std::vector<double> cumulative;
  double sum = 0.0;
  for (const float z : logits) cumulative.push_back(sum += std::exp(static_cast<double>(z - *best) / temperature));
  const double at = static_cast<double>(random() >> 11) * 0x1p-53 * sum;
  return static_cast<int32_t>(std::min<ptrdiff_t>(std::ranges::upper_bound(cumulative, at) - cumulative.begin(), std::ssize(logits) - 1));
}

int run_generation(const RunVerbOptions& options) {
  if (!(options.temperature >= 0.0)) throw Error(ErrorKind::kUsage, "--temp must be 0 or more");
  const ThreadLimit limit(options.evaluation.threads);
  const std::unique_ptr<ModelSource> source = open_model(options.model);
  const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(source->metadata());
  EvalOptions eval = eval_options(options.evaluation);
  eval.keep_caches = true;
  Evaluator evaluator(*source, eval);
  const OutputHead head(evaluator);
  std::vector<int32_t> next = tokenizer->encode(options.prompt, true, options.special);
  if (next.empty()) throw Error(ErrorKind::kUsage, "the prompt has no tokens");
  std::clog << "quern: reading " << printable(options.model) << "; prompt of " << counted(next.size(), "token") << '\n';
  std::cout << options.prompt << std::flush;
  std::mt19937_64 random(options.seed);
  std::vector<float> state(static_cast<size_t>(evaluator.hparams().hidden)), logits(static_cast<size_t>(head.n_vocab()));
  for (int64_t i = 0; i < options.n; ++i) {
    throw_if_interrupted();
    evaluator.forward({{next}}, no_progress());
    evaluator.final_states().read(evaluator.n_rows() - 1, 1, state.data());
    head.logits(state.data(), 1, logits.data());
    const int32_t token = pick(logits, options.temperature, random);
    if (tokenizer->eos_id() == token) break;
    std::cout << tokenizer->piece(token) << std::flush;
    next = {token};
  }
  std::cout << '\n';
  return 0;
}

}  // namespace

void add_run(CLI::App& app, Context& context) {
  const auto options = std::make_shared<RunVerbOptions>();
  CLI::App* verb = app.add_subcommand("run", "Continue a text: a sanity check, not a chat engine");
  verb->group("Measure")->footer("quern run model.gguf --prompt 'Once upon a time' -n 32");
  verb->add_option("MODEL", options->model, "checkpoint folder or (first) GGUF file")->required()->group("Input");
  verb->add_option("--prompt", options->prompt, "text to continue")->required()->type_name("TEXT")->group("Input");
  verb->add_flag("--special", options->special, "read special tokens in the prompt")->group("Input");
  verb->add_option("-n", options->n, "tokens to make, 1 or more; default 64")->type_name("N")->check(at_least_one)->group("Output");
  verb->add_option("--temp", options->temperature, "0 is greedy; default 0")->type_name("T")->group("Output");
  verb->add_option("--seed", options->seed, "of the random choices; default 1")->type_name("N")->group("Output");
  verb->add_option("--threads", options->evaluation.threads, "1 or more; default all of them")
      ->type_name("N")
      ->check(at_least_one)
      ->group("Run");
  verb->add_option("--memory", options->evaluation.memory, "budget, as 6GiB; default up to 8GiB")
      ->type_name("SIZE")
      ->check(a_size)
      ->group("Run");
  verb->callback([options, &context] { context.command = [options] { return run_generation(*options); }; });
}

}  // namespace quern::cli
