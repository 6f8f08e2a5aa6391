#include <algorithm>
#include <iostream>
#include <memory>

#include "cli/cli.h"
#include "formats/base/model_folder.h"
#include "formats/base/resources.h"
#include "formats/gguf/gguf_folder.h"
#include "formats/gguf/metadata_text.h"
#include "recipes/recipe.h"
#include "verify/intact/inspection.h"

namespace quern::cli {
namespace {

struct InspectOptions {
  std::string path;
  bool as_json = false;
  bool with_tensors = false;
};

// Columns for text: all left-aligned, the last one unpadded.
std::string left_aligned(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i + 1 < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    for (size_t i = 0; i + 1 < row.size(); ++i) out += row[i] + std::string(widths[i] - row[i].size() + 2, ' ');
    out += row.back() + "\n";
  }
  return out;
}

// One row per type and, if there are several, their sum.
void print_totals(const char* type_title, const char* count_title, std::span<const TypeTotal> totals) {
  if (totals.empty()) return;
  std::vector<std::vector<std::string>> rows{{type_title, "tensors", count_title, "size", "bits each"}};
  const auto add = [&](std::string name, size_t n_tensors, int64_t n_elements, uint64_t size_bytes) {
    rows.push_back({std::move(name), std::to_string(n_tensors), std::to_string(n_elements), format_size(size_bytes),
                    number("%.4f", bits_per_element(size_bytes, n_elements))});
  };
  size_t n_tensors = 0;
  for (const TypeTotal& total : totals) {
    add(total.type, total.n_tensors, total.n_elements, total.size_bytes);
    n_tensors += total.n_tensors;
  }
  if (totals.size() > 1) add("all", n_tensors, total_elements(totals), total_bytes(totals));
  std::cout << '\n' << format_table(rows);
}

void print_model(const CheckpointModel& model) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& [field, value] : model.config) rows.push_back({field, printable(value)});
  rows.push_back({"GGUF architecture", model.gguf_arch.empty() ? "none: " + printable(model.problem, 500) : model.gguf_arch});
  for (const std::string& note : model.notes) rows.push_back({"note", printable(note, 500)});
  std::cout << "\nConfig\n" << left_aligned(rows);
}

void print_metadata(const Metadata& metadata) {
  if (metadata.entries().empty()) return;
  std::vector<std::vector<std::string>> rows;
  for (const auto& [key, value] : metadata.entries()) rows.push_back({printable(key), type_name(value), value_text(value)});
  std::cout << "\nMetadata, " << rows.size() << (rows.size() == 1 ? " key\n" : " keys\n") << left_aligned(rows);
}

// The rules that the file was built by, where the name of a mix does not say it.
void print_recipe(const Metadata& metadata) {
  if (metadata.find("quern.recipe.json") == nullptr) return;
  try {
    std::cout << "\nRecipe\n" << recipe_to_json(embedded_recipe(metadata));
  } catch (const Error& error) {
    std::cout << error.what() << '\n';
  }
}

void print_files(const Inspection& found) {
  if (found.files.size() == 1) return;
  const bool split = found.files.front().name.ends_with(".gguf");  // the name of the first says those of the others
  std::vector<std::vector<std::string>> rows{{split ? "Shard" : "File", "tensors", "size"}};
  for (size_t i = 0; i < found.files.size(); ++i) {
    const InspectedFile& file = found.files[i];
    rows.push_back({split ? std::to_string(i + 1) : printable(file.name), std::to_string(file.n_tensors), format_size(file.size_bytes)});
  }
  std::cout << '\n' << format_table(rows);
}

void print_tensors(const Inspection& found) {
  std::vector<std::vector<std::string>> rows{{"Tensor", "type", "shape", "size", "offset"}};
  if (found.files.size() > 1) rows.front().push_back("file");
  for (const InspectedTensor& tensor : found.tensors) {
    rows.push_back({printable(tensor.name), tensor.type, tensor.shape.to_string(), format_size(tensor.size_bytes),
                    std::to_string(tensor.file_offset)});
    if (found.files.size() > 1) rows.back().push_back(std::to_string(tensor.file + 1));
  }
  std::cout << '\n' << format_table(rows);
}

uint64_t total_file_bytes(const Inspection& found) {
  uint64_t sum = 0;
  for (const InspectedFile& file : found.files) sum += file.size_bytes;
  return sum;
}

void print_text(const Inspection& found, const std::string& path, const InspectOptions& options) {
  const bool is_gguf = found.format == Inspection::Format::kGguf;
  std::cout << printable(path, 4096) << ": " << (is_gguf ? "GGUF version " + std::to_string(found.version) : "safetensors") << ", "
            << found.tensors.size() << " tensors, " << format_size(total_file_bytes(found));
  if (found.files.size() > 1) std::cout << " in " << found.files.size() << " files";
  if (is_gguf && !found.tensors.empty())
    std::cout << ", " << number("%.3f", bits_per_element(total_bytes(found.types), total_elements(found.types))) << " bits per weight";
  if (is_gguf && !found.tensors.empty() && found.files.size() == 1) {
    std::cout << ", data from byte " << found.files.front().data_offset << ", alignment " << found.alignment;
  }
  std::cout << '\n';
  if (found.model) print_model(*found.model);
  print_metadata(found.metadata);
  print_recipe(found.metadata);
  print_files(found);
  // What a checkpoint stores may be packed codes and scales: elements, not weights.
  print_totals("Type", is_gguf ? "weights" : "elements", found.types);
  if (found.model) print_totals("Model as", "weights", found.model->encodings);
  if (options.with_tensors) print_tensors(found);
}

// The path, or every build of a published folder.
std::vector<std::string> inspected_paths(const std::string& path) {
  std::vector<std::string> paths;
  const ModelFolder folder{std::filesystem::path(path)};
  if (!folder.has("config.json") && first_name(folder, ".safetensors").empty()) {
    for (const std::string& model : gguf::models_in(folder)) paths.push_back((folder.path() / model).string());
  }
  return paths.empty() ? std::vector<std::string>{path} : paths;
}

// Of several models a list of what there would be of one.
void print_json(const InspectOptions& options, const std::vector<std::string>& paths) {
  std::string out;
  for (const std::string& path : paths) out += (out.empty() ? "" : ",") + inspection_to_json(inspect(path), path, options.with_tensors);
  std::cout << (paths.size() == 1 ? out : "[" + out + "]\n");
}

int run_inspect(const InspectOptions& options) {
  const std::vector<std::string> paths = inspected_paths(options.path);
  if (options.as_json) {
    print_json(options, paths);
    return 0;
  }
  for (const std::string& path : paths) {
    if (path != paths.front()) std::cout << '\n';
    print_text(inspect(path), path, options);
  }
  return 0;
}

}  // namespace

void add_inspect(CLI::App& app, Context& context) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* verb = app.add_subcommand("inspect", "Show what a file or checkpoint contains");
  verb->group("Look");
  verb->add_option("PATH", options->path, "GGUF file, checkpoint, or published folder")->required()->group("Input");
  verb->add_flag("--tensors", options->with_tensors, "list every tensor")->group("Output");
  verb->add_flag("--json", options->as_json, "results as JSON: quern.inspect/1")->group("Output");
  verb->footer("quern inspect model-00001-of-00003.gguf --tensors");
  verb->callback([options, &context] { context.command = [options] { return run_inspect(*options); }; });
}

}  // namespace quern::cli
