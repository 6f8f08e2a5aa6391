#include <chrono>
#include <cmath>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/evaluation.h"
#include "cli/progress_bar.h"
#include "formats/base/parallel.h"
#include "formats/base/resources.h"
#include "formats/model/model_facts.h"
#include "verify/drift/perplexity.h"

namespace quern::cli {
namespace {

using nlohmann::ordered_json;

struct PerplexityOptions {
  std::string model;
  bool mtp = false;
  std::string mtp_input = "after-norm";
  EvaluationOptions evaluation;
};

std::string with_error(double value, double error) { return number("%.4f", value) + " +- " + number("%.4f", error); }

struct Measured {
  Perplexity perplexity;
  std::optional<MtpScore> mtp;
  uint64_t bytes_read = 0;
  uint64_t size_bytes = 0;
  double seconds = 0.0;
  bool bos = false;
  std::vector<std::string> warnings;
};

ordered_json measured_json(const PerplexityOptions& options, const Measured& m) {
  const Perplexity& p = m.perplexity;
  ordered_json chunks = ordered_json::array();
  const int64_t row = p.n_ctx - 1, first = p.n_ctx / 2;
  for (int64_t c = 0; c < p.n_chunks; ++c) {
    double sum = 0.0;
    for (int64_t t = first; t < row; ++t) sum -= static_cast<double>(p.log_probs[static_cast<size_t>(c * row + t)]);
    chunks.push_back(sum / static_cast<double>(row - first));
  }
  ordered_json root = {{"schema", "quern.perplexity/1"},
                       {"model", options.model},
                       {"text", options.evaluation.text},
                       {"ctx", p.n_ctx},
                       {"chunks", p.n_chunks},
                       {"bos", m.bos},
                       {"arithmetic", options.evaluation.plain ? "plain" : "fast"},
                       {"scored_tokens", p.n_scored},
                       {"ppl", p.ppl},
                       {"ppl_error", p.ppl_error},
                       {"ppl_error_between_chunks", p.ppl_chunk_error},
                       {"nll_all", p.nll_all},
                       {"ppl_all", p.ppl_all},
                       {"bits_per_byte", p.bits_per_byte},
                       {"chunk_nll", chunks},
                       {"log_probs", p.log_probs}};
  if (!m.warnings.empty()) root["warnings"] = m.warnings;
  if (m.mtp) {
    root["mtp"] = {{"input", options.mtp_input},
                   {"nll", m.mtp->nll},
                   {"ppl", std::exp(m.mtp->nll)},
                   {"greedy_agreement", m.mtp->greedy_agreement},
                   {"log_probs", m.mtp->log_probs}};
  }
  root["bytes_read"] = m.bytes_read;
  root["size_bytes"] = m.size_bytes;
  root["peak_memory_bytes"] = peak_resident_bytes();
  root["seconds"] = m.seconds;
  return root;
}

void print_measured(const Measured& m) {
  const Perplexity& p = m.perplexity;
  std::vector<std::vector<std::string>> rows = {
      {"perplexity", with_error(p.ppl, p.ppl_error)},
      {"  error from chunk means", number("%.4f", p.ppl_chunk_error)},
      {"  scored tokens", std::to_string(p.n_scored)},
      {"all tokens: perplexity", number("%.4f", p.ppl_all)},
      {"all tokens: nats per token", number("%.5f", p.nll_all)},
      {"all tokens: bits per byte", number("%.5f", p.bits_per_byte)},
  };
  if (m.mtp) {
    rows.push_back({"MTP block: perplexity of token t+2", number("%.4f", std::exp(m.mtp->nll))});
    rows.push_back({"MTP block: agrees with the main head", number("%.2f %%", 100.0 * m.mtp->greedy_agreement)});
  }
  std::cout << format_table(rows);
}

MtpInput parse_mtp_input(const std::string& text) {
  if (text == "after-norm") return MtpInput::kAfterNorm;
  if (text == "before-norm") return MtpInput::kBeforeNorm;
  throw Error(ErrorKind::kUsage, "--mtp-input '" + printable(text) + "' is not after-norm or before-norm");
}

int run_perplexity(const PerplexityOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const ThreadLimit limit(options.evaluation.threads);
  const MtpInput mtp_input = parse_mtp_input(options.mtp_input);
  const std::unique_ptr<ModelSource> source = open_model(options.model);
  const ChunkedText text = load_text(*source, text_options(options.evaluation));
  const EvalOptions eval = eval_options(options.evaluation);
  Evaluator evaluator(*source, eval);
  const EvalPlan plan = evaluator.plan(text.chunks);
  announce_evaluation(*source, options.model, options.evaluation, text, plan);
  if (options.evaluation.dry_run) {
    std::cout << (options.evaluation.json ? plans_to_json("quern.perplexity/1", {{options.model, plan}}) : plan_table(plan));
    return 0;
  }
  ProgressBar bar;
  Measured measured;
  evaluator.forward(text.chunks, bar);
  if (!options.mtp) evaluator.drop_states();
  const OutputHead head(evaluator);
  measured.perplexity =
      score(evaluator, head, text.chunks, [&](int32_t token) { return static_cast<int64_t>(text.tokenizer->piece(token).size()); });
  measured.bytes_read = source->bytes_read();
  measured.size_bytes = size_on_disk(*source);
  measured.bos = text.tokenizer->adds_bos();
  measured.warnings = text.warnings;
  if (options.mtp) {
    ModelOptions draft;
    draft.mtp = true;
    const std::unique_ptr<ModelSource> mtp = open_model(options.model, draft);
    measured.mtp = score_mtp(*mtp, eval, evaluator, head, text.chunks, mtp_input, bar);
    measured.bytes_read += mtp->bytes_read();
  }
  measured.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (options.evaluation.json) {
    std::cout << measured_json(options, measured).dump(1) << '\n';
  } else {
    print_measured(measured);
  }
  print_cost(measured.bytes_read, measured.size_bytes, measured.seconds);
  return 0;
}

}  // namespace

void add_perplexity(CLI::App& app, Context& context) {
  const auto options = std::make_shared<PerplexityOptions>();
  CLI::App* verb = app.add_subcommand("perplexity", "Measure how well a model predicts a text");
  verb->group("Measure")->footer("quern perplexity model.gguf --eval-text wiki.test.raw --memory 6GiB");
  verb->add_option("MODEL", options->model, "checkpoint folder or (first) GGUF file")->required()->group("Input");
  verb->add_flag("--mtp", options->mtp, "score the MTP (draft) block as well")->group("Input");
  verb->add_option("--mtp-input", options->mtp_input, "after-norm or before-norm; default after-norm")->type_name("STATE")->group("Input");
  add_evaluation_options(*verb, options->evaluation, true);
  verb->callback([options, &context] { context.command = [options] { return run_perplexity(*options); }; });
}

}  // namespace quern::cli
