#include <algorithm>
#include <iostream>
#include <memory>

#include "cli/cli.h"
#include "cli/progress_bar.h"
#include "formats/base/counted.h"
#include "formats/base/parallel.h"
#include "formats/gguf/metadata_text.h"
#include "verify/intact/model_diff.h"

namespace quern::cli {
namespace {

struct DiffOptions {
  std::string a, b;
  bool json = false;
};

std::string type_of(const ModelSource& source, std::optional<size_t> tensor) {
  return tensor ? std::string(name_of(source.tensors()[*tensor].source_type)) : "-";
}

std::string remark(const ModelSource& a, const ModelSource& b, const TensorDifference& tensor) {
  if (!tensor.a) return "only in B";
  if (!tensor.b) return "only in A";
  const Shape &shape_a = a.tensors()[*tensor.a].shape, &shape_b = b.tensors()[*tensor.b].shape;
  if (!(shape_a == shape_b)) return shape_a.to_string() + " and " + shape_b.to_string();
  return tensor.n_different == 0 ? "same weights" : "";
}

// "2 keys, 3 tensors with other weights and 1 with the same weights in another type differ; 26 tensors are the same"
std::string summary(const ModelDifference& difference) {
  const auto is_same = [](const TensorDifference& tensor) { return tensor.comparable && tensor.n_different == 0; };
  const size_t n_same_weights = static_cast<size_t>(std::ranges::count_if(difference.tensors, is_same));
  std::string text =
      counted(difference.keys.size(), "key") + " and " + counted(difference.tensors.size() - n_same_weights, "tensor") + " differ";
  if (n_same_weights > 0) text += ", " + counted(n_same_weights, "tensor") + " of the same weights in another type";
  return text + "; the same: " + counted(difference.n_same_tensors, "tensor");
}

void print_text(const ModelSource& a, const ModelSource& b, const ModelDifference& difference) {
  std::cout << summary(difference) << '\n';
  if (!difference.keys.empty()) std::cout << '\n';
  for (const KeyDifference& key : difference.keys) {
    std::cout << printable(key.key) << '\n';
    if (key.a != nullptr) std::cout << "  A  " << type_name(*key.a) << "  " << value_text(*key.a) << '\n';
    if (key.b != nullptr) std::cout << "  B  " << type_name(*key.b) << "  " << value_text(*key.b) << '\n';
  }
  std::vector<std::vector<std::string>> rows = {{"tensor", "A", "B", "different", "of", "rel. error", "largest", ""}};
  for (const TensorDifference& tensor : difference.tensors) {
    const bool compared = tensor.comparable && tensor.n_different > 0;
    rows.push_back({printable(tensor.name), type_of(a, tensor.a), type_of(b, tensor.b), std::to_string(tensor.n_different),
                    std::to_string(tensor.n_weights), compared ? number("%.3e", tensor.relative_error) : "",
                    compared ? number("%.3e", tensor.largest_change) : "", remark(a, b, tensor)});
  }
  if (rows.size() > 1) std::cout << '\n' << format_table(rows);
}

int run_diff(const DiffOptions& options) {
  const ThreadLimit limit(0);
  const std::unique_ptr<ModelSource> a = open_model(options.a), b = open_model(options.b);
  ProgressBar bar;
  const ModelDifference difference = compare_models(*a, *b, bar);
  if (options.json) {
    std::cout << difference_to_json(*a, *b, difference);
  } else {
    print_text(*a, *b, difference);
  }
  return difference.keys.empty() && difference.tensors.empty() ? 0 : exit_code(ErrorKind::kGate);
}

}  // namespace

void add_diff(CLI::App& app, Context& context) {
  const auto options = std::make_shared<DiffOptions>();
  CLI::App* verb = app.add_subcommand("diff", "Show in what two models differ; exit code 1 if they do");
  verb->group("Look")->footer("quern diff old-Q4_K_M.gguf new-Q4_K_M.gguf");
  verb->add_option("A", options->a, "GGUF file, first shard, or checkpoint folder")->required()->group("Input");
  verb->add_option("B", options->b, "the same")->required()->group("Input");
  verb->add_flag("--json", options->json, "results as JSON on stdout")->group("Run");
  verb->callback([options, &context] { context.command = [options] { return run_diff(*options); }; });
}

}  // namespace quern::cli
