#include "cli/evaluation.h"

#include <algorithm>
#include <cstdio>
#include <iostream>

#include "formats/base/file.h"
#include "formats/base/resources.h"

namespace quern::cli {
namespace {

constexpr uint64_t kMaxTextBytes = uint64_t{1} << 30;

uint64_t memory_budget(const std::string& text) {
  if (!text.empty()) return parse_size(text);
  return std::min(uint64_t{8} << 30, available_memory_bytes() / 4 * 3);
}

}  // namespace

void add_evaluation_options(CLI::App& verb, EvaluationOptions& options, bool text_required) {
  CLI::Option* text = verb.add_option("--eval-text", options.text, "text to measure on")->type_name("FILE")->group("Text");
  if (text_required) text->required();
  verb.add_option("--ctx", options.ctx, "tokens per chunk, 4 or more; default 512")->type_name("N")->group("Text");
  verb.add_option("--chunks", options.chunks, "use the first N only; default all")->type_name("N")->check(at_least_one)->group("Text");
  verb.add_option("--threads", options.threads, "1 or more; default all of them")->type_name("N")->check(at_least_one)->group("Run");
  verb.add_option("--memory", options.memory, "budget, as 6GiB; default up to 8GiB")->type_name("SIZE")->check(a_size)->group("Run");
  verb.add_flag("--plain", options.plain, "sums in double; slower, the oracle")->group("Run");
  verb.add_flag("--dry-run", options.dry_run, "show the plan only")->group("Run");
  verb.add_flag("--json", options.json, "results as JSON")->group("Run");
}

EvalOptions eval_options(const EvaluationOptions& options) {
  return {.memory_bytes = memory_budget(options.memory), .arithmetic = options.plain ? Arithmetic::kPlain : fastest_arithmetic()};
}

ChunkedText load_chunks(const ModelSource& source, const EvaluationOptions& options) {
  std::string text = read_text_file(options.text, kMaxTextBytes);
  if (text.ends_with('\n')) text.pop_back();
  ChunkedText result;
  result.tokenizer = make_tokenizer(source.metadata());
  const std::optional<int32_t> bos = result.tokenizer->adds_bos() ? result.tokenizer->bos_id() : std::nullopt;
  try {
    if (text.empty()) throw Error(ErrorKind::kUsage, "the text is empty");
    const std::vector<int32_t> tokens = result.tokenizer->encode(text, true, false);
    result.n_text_tokens = static_cast<int64_t>(tokens.size());
    result.chunks = make_chunks(tokens, options.ctx, options.chunks, bos);
    result.text_tokens.assign(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(result.chunks.size()) * options.ctx);
  } catch (Error& error) {
    error.file(options.text);
    throw;
  }
  return result;
}

uint64_t size_on_disk(const ModelSource& source) {
  uint64_t sum = 0;
  for (const SourceFile& file : source.files()) sum += file.size_bytes;
  return sum;
}

double bits_per_weight(const ModelSource& source) {
  double bits = 0.0, weights = 0.0;
  for (const LogicalTensor& tensor : source.tensors()) {
    bits += 8.0 * static_cast<double>(tensor.source_bytes);
    weights += static_cast<double>(tensor.shape.n_elements());
  }
  return bits / weights;
}

std::string shown_name(const std::filesystem::path& path) {
  const std::filesystem::path name = path.filename();
  return name.empty() || name == "." || name == ".." ? std::filesystem::weakly_canonical(path).filename().string() : name.string();
}

void announce_evaluation(const ModelSource& source, const std::string& model, const EvaluationOptions& options, const ChunkedText& text,
                         const EvalPlan& plan) {
  std::cerr << "reading " << printable(model) << " (" << format_size(size_on_disk(source)) << ", " << source.tensors().size()
            << " tensors)\n";
  std::cerr << "text " << printable(options.text) << ": " << text.n_text_tokens << " tokens, " << text.chunks.size() << " chunks of "
            << options.ctx << (text.tokenizer->adds_bos() ? ", BOS first" : ", no BOS") << "; memory " << format_size(plan.total_bytes())
            << (plan.spill ? ", states in a temporary file of " + format_size(plan.state_bytes) : "") << '\n';
  for (const std::string& note : source.notes()) std::cerr << "note: " << printable(note, 1000) << '\n';
}

std::string plan_table(const EvalPlan& plan) {
  return format_table({{"tokens", std::to_string(plan.n_tokens)},
                       {"weights read at most", format_size(plan.weight_bytes)},
                       {plan.spill ? "states of all tokens (in a file)" : "states of all tokens", format_size(plan.state_bytes)},
                       {"largest layer without experts", format_size(plan.layer_bytes)},
                       {"largest expert", format_size(plan.expert_bytes)},
                       {"intermediates", format_size(plan.work_bytes)},
                       {"read ahead", format_size(plan.prefetch_bytes)},
                       {"memory", format_size(plan.total_bytes())}});
}

void print_cost(uint64_t bytes_read, uint64_t size_bytes, double seconds) {
  char time[32];
  std::snprintf(time, sizeof time, "%.1f s", seconds);
  std::cerr << "read " << format_size(bytes_read) << " of " << format_size(size_bytes) << ", peak memory "
            << format_size(peak_resident_bytes()) << ", " << time << '\n';
}

}  // namespace quern::cli
