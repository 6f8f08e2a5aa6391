#include "verify/publish/readme.h"

#include <algorithm>
#include <cstdio>
#include <map>

#include "formats/base/resources.h"
#include "verify/draw/markdown.h"
#include "verify/draw/markup.h"
#include "verify/publish/card_values.h"
#include "verify/records/setting_keys.h"
#include "verify/report/making.h"

// A README has two kinds of readers: hubs take the front matter, people the rest. Licences, tags and names of files come from others, so
// strings of the front matter are quoted, and everything else is escaped for the place where it stands. Every sentence follows from the
// facts that are given, the same facts give the same bytes, and a section that has no facts is left out.

namespace quern {
namespace {

std::string number(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

// A YAML scalar in double quotes: JSON's escapes are YAML's.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : clean_line(text)) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string link(const std::string& text, const std::string& target) { return "[" + escape_markdown(text) + "](" + target + ")"; }

std::string row(const std::vector<std::string>& cells) {
  std::string line = "|";
  for (const std::string& text : cells) line += " " + text + " |";
  return line + "\n";
}

std::string with_article(const std::string& noun) {
  const bool vowel = !noun.empty() && std::string_view("aeiou").find(noun.front()) != std::string_view::npos;
  return (vowel ? "an " : "a ") + noun;
}

uint64_t size_of(const BuildRecord& build) {
  uint64_t size = 0;
  for (const FileRecord& file : build.files) size += file.size_bytes;
  return size;
}

double bits_per_weight(const BuildRecord& build) {
  uint64_t bytes = 0;
  int64_t weights = 0;
  for (const TensorRecord& tensor : build.tensors) {
    bytes += tensor.size_bytes;
    weights += tensor.shape.n_elements();
  }
  return weights == 0 ? 0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(weights);
}

class Readme {
 public:
  explicit Readme(const ReadmeFacts& facts) : facts_(facts), manifest_(*facts.manifest) {}

  std::string make() {
    front_matter();
    introduction();
    files();
    use();
    recipe();
    origin();
    verification();
    return std::move(text_);
  }

 private:
  std::string value(const char* key, const std::string& fallback = "") const { return facts_.metadata.find_string(key).value_or(fallback); }

  void field(const char* key, const std::string& text) {
    if (!text.empty()) text_ += std::string(key) + ": " + quoted(text) + "\n";
  }

  void list(const char* key, const std::vector<std::string>& items) {
    if (items.empty()) return;
    text_ += std::string(key) + ":\n";
    for (const std::string& item : items) text_ += "- " + quoted(item) + "\n";
  }

  void front_matter() {
    text_ += "---\n";
    if (!manifest_.base_model.empty()) {
      field("base_model", manifest_.base_model);
      text_ += "base_model_relation: quantized\n";
    }
    field("quantized_by", facts_.quantized_by);
    text_ += "library_name: gguf\n";
    text_ += "pipeline_tag: text-generation\n";
    const std::vector<std::string> licenses = licenses_of(facts_.metadata);
    if (licenses.size() == 1)
      field("license", licenses.front());
    else
      list("license", licenses);
    field("license_name", license_name_of(value("general.license.name")));
    field("license_link", value("general.license.link"));
    list("language", languages_of(facts_.metadata));
    std::vector<std::string> tags = {"gguf", "quern"};
    if (!value("general.architecture").empty()) tags.push_back(value("general.architecture"));
    list("tags", tags);
    text_ += "---\n\n";
  }

  const DriftRow* drift_of(const BuildRecord& build) const { return find_row(drift_row_name(build)); }

  const DriftRow* find_row(const std::string& name) const {
    if (!facts_.drift) return nullptr;
    const auto found = std::ranges::find(facts_.drift->rows, name, &DriftRow::name);
    return found == facts_.drift->rows.end() ? nullptr : &*found;
  }

  void introduction() {
    const std::string name = escape_markdown(value("general.name", "Model"));
    text_ += "# " + name + ", GGUF\n\nBuilds of ";
    text_ += manifest_.base_model.empty() ? "**" + name + "**"
                                          : link(manifest_.base_model, "https://huggingface.co/" + link_target(manifest_.base_model));
    if (!manifest_.revision.empty()) text_ += " at revision " + code_span(manifest_.revision);
    text_ += " for llama.cpp and its relatives, made with quern " + manifest_.quern_version +
             " from the original checkpoint. Every file, tensor and expert has its checksum in `manifest.json`" +
             (facts_.key_id.empty() ? "" : ", the folder is signed") + ", and " +
             (fed_builds().empty() ? "anybody can derive the tensors again from the original"
                                   : "whoever has the original and the calibration text can derive the tensors again") +
             ".\n\n";
  }

  void files() {
    text_ += "## Files\n\n";
    const bool measured = facts_.drift.has_value();
    std::vector<std::string> head = {"type", "file", "size", "bits per weight", "relative error"};
    if (measured) head.insert(head.end(), {"perplexity", "mean KL divergence", "same top token"});
    text_ += row(head) + row(std::vector<std::string>(head.size(), "---"));
    std::vector<const BuildRecord*> builds;
    for (const BuildRecord& build : manifest_.builds) builds.push_back(&build);
    std::ranges::stable_sort(builds, {}, [](const BuildRecord* build) { return size_of(*build); });
    for (const BuildRecord* build : builds) text_ += row(cells_of(*build, measured));
    text_ += "\n";
    if (measured) measurement();
    text_ +=
        "`manifest.json` has the error of every tensor and expert. A relative error of 0.06 is the usual one of 4-bit types; builds called "
        "lossless hold every weight of the original exactly.";
    if (!fed_builds().empty()) text_ += " With error feedback it is larger, and the predictions are nearer to the original's.";
    text_ += "\n\n";
    machines();
  }

  void machines() {
    if (facts_.machines.empty()) return;
    text_ += "## Which file for which memory\n\nThe largest build that fits with a context of " +
             std::to_string(advice_context(facts_.metadata)) + " tokens; speeds are what the memory's bandwidth allows at most.\n\n" +
             row({"machine", "build", "memory left", "tokens per second"}) + row({"---", "---", "---", "---"});
    for (const MachineAdvice& advice : facts_.machines) {
      if (advice.label.empty()) {
        text_ += row({advice.machine, "none fits", "", ""});
      } else {
        text_ += row({advice.machine, escape_markdown(advice.label), format_size(advice.left_bytes),
                      "≤ " + number(advice.tokens_per_second < 1.0 ? "%.1f" : "%.0f", advice.tokens_per_second)});
      }
    }
    text_ += "\n";
  }

  std::vector<std::string> cells_of(const BuildRecord& build, bool measured) const {
    const size_t n = build.files.size();
    std::vector<std::string> cells = {
        escape_markdown(build.label),
        link(drift_row_name(build), link_target(build.files.front().name)) + (n > 1 ? ", " + std::to_string(n) + " files" : ""),
        format_size(size_of(build)), number("%.2f", bits_per_weight(build)),
        build.error && build.error->exact ? "exact"
        : build.error                     ? number("%.4f", build.error->relative_error)
                                          : ""};
    if (!measured) return cells;
    const DriftRow* drift = drift_of(build);
    if (drift == nullptr) {
      cells.insert(cells.end(), {"", "", ""});
      return cells;
    }
    const DriftStatistics& s = drift->drift.statistics;
    cells.push_back(number("%.4f", s.ppl.value) + " ± " + number("%.4f", s.ppl.error));
    cells.push_back(number("%.6f", s.kl.value) + " ± " + number("%.6f", s.kl.error));
    cells.push_back(number("%.2f %%", 100 * s.same_top.value));
    return cells;
  }

  void measurement() {
    const DriftReport& drift = *facts_.drift;
    const DriftRow* floor = find_row(kNoiseFloorName);
    if (drift.rows.empty()) return;
    const DriftStatistics& s = drift.rows.front().drift.statistics;
    text_ += "Measured against the original checkpoint on " + code_span(drift.text) + ", " + std::to_string(s.n_tokens) +
             " scored tokens in chunks of " + std::to_string(drift.n_ctx) + "; the original has perplexity " +
             number("%.4f", s.ppl_original.value) + ".";
    if (floor != nullptr) {
      text_ += " Rounding alone, the original against itself with BF16-sized noise, gives a mean KL divergence of " +
               number("%.6f", floor->drift.statistics.kl.value) + ": differences below that mean nothing.";
    }
    text_ += " Intervals are one standard error.\n\n";
  }

  // Number of tensors and weights per type.
  static std::string types_of(const BuildRecord& build) {
    std::map<std::string, size_t> counts;
    for (const TensorRecord& tensor : build.tensors) ++counts[std::string(name_of(tensor.type))];
    std::string text;
    for (const auto& [type, n] : counts) text += (text.empty() ? "" : ", ") + type + " (" + std::to_string(n) + ")";
    return text;
  }

  // The largest build that is not lossless, else the largest one; nullptr when none is for llama.cpp.
  const BuildRecord* example() const {
    const BuildRecord* best = nullptr;
    const auto rank = [](const BuildRecord& build) { return std::pair(!build.lossless, size_of(build)); };
    for (const BuildRecord& build : manifest_.builds) {
      if (build.mtp || build.container != &default_container()) continue;
      if (best == nullptr || rank(build) > rank(*best)) best = &build;
    }
    return best;
  }

  void use() {
    const BuildRecord* build = example();
    if (build == nullptr) return;
    const std::string name = clean_line(build->files.front().name), file = shell_word(name);
    const std::string repository = (facts_.quantized_by.empty() ? "OWNER" : shell_word(clean_line(facts_.quantized_by))) + "/NAME";
    const bool in_folder = build->files.size() > 1 && name.find('/') != std::string::npos;
    const std::string wanted = in_folder ? "--include " + shell_word(name.substr(0, name.find('/')) + "/*") : file;
    text_ += "## How to use it\n\nWith `NAME` as the name of this repository, for " + escape_markdown(build->label) + ":\n\n" +
             code_block("hf download " + repository + " " + wanted + " --local-dir .\nhf download " + repository +
                        " SHA256SUMS --local-dir .\nsha256sum -c --ignore-missing SHA256SUMS\nllama-cli -m " + file) +
             "\nor in one step, without the check:\n\n" + code_block("llama-cli -hf " + repository + " --hf-file " + file) + "\n";
  }

  // The published file that a build's recipe was read from.
  const InputRecord* recipe_file(const BuildRecord& build) const {
    const auto found = std::ranges::find_if(manifest_.inputs, [&](const InputRecord& input) {
      return input.kind == "recipe" && !input.name.empty() && input.name == build.recipe + ".json";
    });
    return found == manifest_.inputs.end() ? nullptr : &*found;
  }

  void recipe() {
    text_ += "## Recipes\n\n" + row({"type", "recipe", "tensors by type"}) + row({"---", "---", "---"});
    for (const BuildRecord& build : manifest_.builds) {
      const InputRecord* file = recipe_file(build);
      const std::string name = file != nullptr ? link(file->name, link_target(file->name)) : escape_markdown(build.recipe);
      text_ += row({escape_markdown(build.label), name, types_of(build)});
    }
    text_ += "\n";
    for (const BuildRecord& build : manifest_.builds) {
      if (build.settings.entries().empty()) continue;
      std::string settings;
      for (const auto& [key, setting] : build.settings.entries()) {
        const bool rules = key == kRecipeJsonKey;  // a page of JSON
        settings += key + (rules ? ": the rules, a value of the file's metadata" : " = " + shown(setting)) + "\n";
      }
      text_ += "<details><summary>" + escape_markup(build.label) + ": how it was encoded</summary>\n\n" + code_block(settings) +
               "\n</details>\n\n";
    }
  }

  static std::string shown(const MetaValue& setting) {
    return std::visit(
        []<typename T>(const T& v) -> std::string {
          if constexpr (std::is_same_v<T, std::string>) {
            return v;
          } else if constexpr (std::is_same_v<T, bool>) {
            return v ? "true" : "false";
          } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
            std::string text;
            for (const std::string& item : v) text += (text.empty() ? "" : ", ") + item;
            return text;
          } else if constexpr (std::is_arithmetic_v<T>) {
            return std::to_string(v);
          } else {
            return std::to_string(v.size()) + " values";
          }
        },
        setting);
  }

  void origin() {
    text_ += "## How it was made\n\n";
    text_ += "From the files of the original, whose SHA-256 are in `manifest.json` (" + std::to_string(manifest_.sources.size()) + ")";
    for (const InputRecord& input : manifest_.inputs) {
      text_ += ", " + (input.name.empty() ? with_article(input.kind) + ", not published, with SHA-256 `" + input.sha256 + "`"
                                          : "the " + input.kind + " " + link(input.name, link_target(input.name)));
    }
    text_ +=
        ". The bytes depend on the original, the recipe, the statistics and the version, and on nothing else: not on the machine, "
        "not on the number of threads.\n\n";
    for (const FedBuilds& fed : fed_builds()) {
      const std::string text = fed.feedback.text.empty() ? "a calibration text" : code_span(fed.feedback.text);
      text_ += feedback_sentence(fed, text) + "\n\n";
    }
  }

  std::vector<FedBuilds> fed_builds() const {
    std::vector<FedBuilds> kinds;
    for (const BuildRecord& build : manifest_.builds) add_fed_build(escape_markdown(build.label), feedback_of(build.settings), kinds);
    return kinds;
  }

  void verification() {
    std::string commands;
    for (const std::string& command : integrity_commands(!facts_.key_id.empty())) commands += command + "\n";
    commands += derivation_command(fed_builds()) + "\n";
    text_ += "## How to check it\n\n" + code_block(commands) +
             "\nThe last command makes a random sample of every tensor again from the original checkpoint and compares it byte by byte.";
    if (!facts_.key_id.empty()) {
      text_ += " The folder is signed by the key `" + facts_.key_id +
               "`; take its public half from the publisher and not from this folder. The signature in `attestation.intoto.jsonl` is an "
               "in-toto statement in a DSSE envelope (Ed25519); the openssl command line can check it too.";
    }
    text_ += "\n";
  }

  const ReadmeFacts& facts_;
  const Manifest& manifest_;
  std::string text_;
};

}  // namespace

int64_t advice_context(const Metadata& metadata) {
  constexpr int64_t kUsual = 8192;
  const std::string arch = metadata.find_string("general.architecture").value_or("");
  const int64_t trained = metadata.find_int(arch + ".context_length").value_or(kUsual);
  return trained > 0 ? std::min(trained, kUsual) : kUsual;
}

std::string drift_row_name(const BuildRecord& build) {
  const std::string& name = build.files.front().name;
  return name.substr(name.rfind('/') + 1);
}

std::string make_readme(const ReadmeFacts& facts) { return Readme(facts).make(); }

}  // namespace quern
