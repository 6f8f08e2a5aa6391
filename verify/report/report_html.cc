#include <algorithm>
#include <cmath>
#include <set>

#include "formats/base/counted.h"
#include "formats/base/resources.h"
#include "verify/draw/markdown.h"
#include "verify/draw/markup.h"
#include "verify/report/report.h"
#include "verify/report/report_figures.h"
#include "verify/report/report_page.h"

// The page answers questions in the order in which people have them: which file to take, what each file is and lost, where it lost it, how
// all of it was made, and how to check that. Each section is one function that returns its part of the page, or nothing when the report
// does not know enough for it; so a report from a few measurements and one from a full manifest go the same way.

namespace quern {
namespace {

using namespace page;

bool any_measured(const Report& report) {
  return std::ranges::any_of(report.builds, [](const ReportBuild& build) { return build.measured.has_value(); });
}

// So many decimals that the smallest KL of the table has two digits, and no more than make sense.
int kl_decimals(const Report& report) {
  double smallest = 1.0;
  const auto look = [&](const DriftRow& row) {
    if (const double kl = row.drift.statistics.kl.value; kl > 0.0) smallest = std::min(smallest, kl);
  };
  if (report.noise_floor) look(*report.noise_floor);
  for (const ReportBuild& build : report.builds) {
    if (build.measured) look(*build.measured);
  }
  return std::clamp(static_cast<int>(std::ceil(-std::log10(smallest))) + 1, 3, 5);
}

// The name of a file of the folder, as a link where the page lies beside it.
std::string file_link(const Report& report, const std::string& name, const std::string& shown) {
  if (!report.beside_files || name.empty()) return escape_markup(shown);
  return "<a href=\"./" + link_target(name) + "\">" + escape_markup(shown) + "</a>";
}

std::string measured_on(const Report& report) {
  const auto row = std::ranges::find_if(report.builds, [](const ReportBuild& build) { return build.measured.has_value(); });
  if (row == report.builds.end()) return "";
  return "Measured on " + std::to_string(row->measured->drift.statistics.n_tokens) + " tokens" +
         (report.text.empty() ? "" : " of " + report.text) + " (" +
         counted(static_cast<size_t>(std::max<int64_t>(0, report.n_chunks)), "chunk") + " of " + std::to_string(report.n_ctx) + ").";
}

std::string header(const Report& report) {
  std::string meta;
  if (!report.base_model.empty()) {
    meta += "Made from " + report.base_model + (report.revision.empty() ? "" : ", revision " + report.revision) + ". ";
  }
  meta += measured_on(report);
  if (!report.made_by.empty()) meta += " quern " + report.made_by + ".";
  return wrap("header", element("p", "Report on quantized builds", "eyebrow") + element("h1", report.model) +
                            element("p", summary_sentence(report), "lead") + element("p", meta, "meta"));
}

// "Q6_K and Q8_0 are left out: lossless is smaller and exact."
std::string left_out(const Report& report) {
  std::vector<std::pair<std::string, std::vector<std::string>>> reasons;  // with the builds that they are true of
  for (const ReportBuild& build : report.builds) {
    const ReportBuild* better = better_choice(report, build);
    if (better == nullptr) continue;
    const bool exact = better->measured->drift.statistics.kl.value <= 0.0;
    const std::string reason = better->name + (better->size_bytes < build.size_bytes ? " is smaller" : " is as small") +
                               (exact ? " and exact." : " and no further from the original.");
    if (reasons.empty() || reasons.back().first != reason) reasons.push_back({reason, {}});
    reasons.back().second.push_back(build.name);
  }
  std::string out;
  for (const auto& [reason, names] : reasons) out += " " + listed(names) + (names.size() == 1 ? " is" : " are") + " left out: " + reason;
  return out;
}

std::string choices(const Report& report) {
  std::string items;
  for (const ReportBuild& build : report.builds) {
    if (!build.measured || build.size_bytes == 0 || better_choice(report, build) != nullptr) continue;
    items += wrap("li", element("span", format_size(build.size_bytes), "size") + element("span", build.name, "name") +
                            element("span", verdict(build, report.noise_floor), "verdict"));
  }
  if (items.empty()) return "";
  const std::string note =
      "A file needs about its own size of memory, plus room for the context. The words are those of mean KL for models of 7 billion "
      "weights and more.";
  return section("Which file for which memory", wrap("ul", "\n" + items, "choices") + element("p", note + left_out(report), "note"));
}

std::vector<Cell> drift_cells(const DriftRow& row, int decimals) {
  const DriftStatistics& s = row.drift.statistics;
  Cell kl = number_cell(s.kl.value, s.kl.error, decimals);
  if (s.kl_slack > 0.0) kl.html += "<span class=\"error\"> (+" + escape_markup(readable_number(s.kl_slack, 2)) + ")</span>";
  if (s.kl.value == 0.0 && s.kl_slack == 0.0) kl.html = "0";
  if (s.kl.value > 0.0 && s.kl.value < 0.5 * std::pow(10.0, -decimals)) kl.html = "&lt; " + decimal(std::pow(10.0, -decimals), decimals);
  return {kl, s.kl_99 == 0.0 ? Cell{"0"} : number_cell(s.kl_99, 0.0, std::max(3, decimals - 1)),
          number_cell(s.same_top.value, s.same_top.error, 1, 100.0, "%"), number_cell(s.ppl.value, s.ppl.error, 2)};
}

Cell exactness(const ReportBuild& build) {
  if (build.lossless || build.relative_error == 0.0) return text_cell("exact");
  return build.relative_error ? number_cell(*build.relative_error, 0.0, 2, 100.0, "%") : Cell{};
}

// The rows below the builds, to measure them by.
std::vector<std::vector<Cell>> reference_rows(const Report& report, int decimals) {
  std::vector<std::vector<Cell>> rows;
  const auto add = [&](const char* name, const std::vector<Cell>& figures) {
    std::vector<Cell> cells = {{name, "reference"}, {""}};
    cells.insert(cells.end(), figures.begin(), figures.end());
    cells.push_back({""});
    rows.push_back(std::move(cells));
  };
  if (report.noise_floor) add("noise floor", drift_cells(*report.noise_floor, decimals));
  const auto some = std::ranges::find_if(report.builds, [](const ReportBuild& build) { return build.measured.has_value(); });
  const Estimate& ppl = some->measured->drift.statistics.ppl_original;
  add("original", {{"0"}, {""}, {""}, number_cell(ppl.value, ppl.error, 2)});
  return rows;
}

// What the builds lost where that was measured, and what their weights lost where not: the second says little of the first.
std::string files(const Report& report) {
  const bool measured = any_measured(report);
  const int decimals = kl_decimals(report);
  std::vector<std::string> headings = {"type", "size"};
  if (measured) headings.insert(headings.end(), {"mean KL, nats", "KL of worst 1\u00A0%", "same top token", "perplexity"});
  headings.push_back("bits per weight");
  if (!measured) headings.push_back("weight error");
  std::vector<std::vector<Cell>> rows;
  for (const ReportBuild& build : report.builds) {
    std::vector<Cell> cells = {{file_link(report, build.files.empty() ? "" : build.files.front().name, build.name)},
                               text_cell(build.size_bytes == 0 ? "" : format_size(build.size_bytes))};
    if (measured) {
      const std::vector<Cell> figures = build.measured ? drift_cells(*build.measured, decimals) : std::vector<Cell>(4);
      cells.insert(cells.end(), figures.begin(), figures.end());
    }
    cells.push_back(build.bits_per_weight > 0.0 ? number_cell(build.bits_per_weight, 0.0, 2) : Cell{});
    if (!measured) cells.push_back(exactness(build));
    rows.push_back(std::move(cells));
  }
  if (!measured) return section("The files", table("The files", headings, rows));
  for (std::vector<Cell>& row : reference_rows(report, decimals)) rows.push_back(std::move(row));
  std::string note = "± is one standard error: values that differ by less than about two of them do not differ.";
  if (report.noise_floor) note += " No file can be told from the original below the noise floor.";
  return section("The files", table("The files", headings, rows) + element("p", note, "note"));
}

std::string loss_section(const Report& report) {
  if (size_and_loss({{"", &report}}, kWide).empty()) return "";
  const auto pareto = [&](double width) { return size_and_loss({{"", &report}}, width); };
  std::string html = figure(pareto,
                            "Each point is a file; bars are one standard error where they are larger than the point. Further down is "
                            "closer to the original, further left is smaller.");
  if (!loss_distributions(report, kWide).empty()) {
    html += element("h3", "Token by token");
    html += figure([&](double width) { return loss_distributions(report, width); },
                   "How many tokens of the text have which KL; each row is scaled to its own peak. A long tail to the right means rare but "
                   "bad mistakes. Tokens below 10⁻⁸ stand at 0.");
  }
  return section("Size against loss", html);
}

// Kinds of tensors that kept every weight in all layers: some by name, the others by number.
std::string exact_roles(const ReportBuild& build) {
  constexpr size_t kNamed = 6;
  std::set<std::string> rounded, counted;
  for (const ReportTensor& tensor : build.tensors) {
    if (!tensor.exact) rounded.insert(place_of(tensor.name).role);
  }
  std::string out;
  for (const ReportTensor& tensor : build.tensors) {
    const std::string role = place_of(tensor.name).role;
    if (rounded.contains(role) || !counted.insert(role).second || counted.size() > kNamed) continue;
    out += (out.empty() ? "" : ", ") + role;
  }
  return out + (counted.size() > kNamed ? " and " + std::to_string(counted.size() - kNamed) + " other kinds" : "");
}

std::string outside_layers(const ReportBuild& build) {
  constexpr size_t kMost = 400;  // bytes: a file may say anything
  std::string out;
  for (const ReportTensor& tensor : build.tensors) {
    if (tensor.exact || place_of(tensor.name).layer >= 0 || out.size() > kMost) continue;
    out += (out.empty() ? "" : ", ") + place_of(tensor.name).role + " (" + tensor.type + ") " +
           readable_number(100.0 * tensor.relative_error, 2) + " %";
  }
  return out;
}

std::string weights_section(const Report& report) {
  const ErrorScale scale = error_scale(report);
  std::string html;
  for (const ReportBuild& build : report.builds) {
    if (build.tensors.empty() || error_map(build, scale, kWide).empty()) continue;
    std::string note;
    if (const std::string outside = outside_layers(build); !outside.empty()) note += "Outside the layers: " + outside + ". ";
    if (const std::string exact = exact_roles(build); !exact.empty()) note += "Exact everywhere: " + exact + ".";
    const std::string total = build.relative_error ? readable_number(100.0 * *build.relative_error, 3) + " % over all weights" : "";
    html += (html.empty() ? "<details open=\"open\">" : "<details>") +
            wrap("summary", escape_markup(build.name) + (total.empty() ? "" : element("span", total))) +
            figure([&](double width) { return error_map(build, scale, width); }, note) + "</details>\n";
  }
  if (html.empty()) return "";
  const std::string intro =
      "The relative error of a tensor is the size of the difference between its weights and the original's, as a share of the weights' own "
      "size. "
      "All files have the same scale of colours.";
  return section("Where the weights changed", element("p", intro) + html);
}

std::string coverage_sentence(const std::vector<ExpertCoverage>& coverage) {
  int64_t n = 0, unseen = 0, few = 0;
  for (const ExpertCoverage& c : coverage) {
    n += c.n_experts;
    unseen += c.n_unseen;
    few += c.n_few;
  }
  const std::string in_all = " of " + std::to_string(n) + " experts in " + counted(coverage.size(), "layer");
  if (few == 0) return "All" + in_all.substr(3) + " were reached by enough tokens of the calibration text.";
  if (unseen == 0)
    return "The calibration text reached every expert; " + std::to_string(few) + in_all + " by too few tokens for a good estimate.";
  return "The calibration text never reached " + std::to_string(unseen) + in_all + ", and " + std::to_string(few - unseen) +
         " more by too few tokens for a good estimate. What an unseen expert needs is taken from the mean of the others in its layer.";
}

std::string experts_section(const Report& report) {
  std::string html;
  if (!expert_changes(report, kWide).empty()) {
    std::string caption =
        "The share of tokens for which the router chose another set of experts than in the original. It says where a loss comes from; it "
        "is "
        "not a loss of its own.";
    if (report.builds.size() > kMostCurves) caption += " Six files are drawn, spread over the sizes.";
    html += figure([&](double width) { return expert_changes(report, width); }, caption);
  }
  if (!report.coverage.empty()) {
    html += element("h3", "What calibration saw") + element("p", coverage_sentence(report.coverage));
    if (!coverage_plot(report.coverage, kWide).empty()) {
      html += figure([&](double width) { return coverage_plot(report.coverage, width); }, "");
    }
  }
  return html.empty() ? "" : section("Experts", html);
}

std::string term(const std::string& name, const std::string& html) { return element("dt", name) + wrap("dd", html); }

std::vector<FedBuilds> fed_builds(const Report& report) {
  std::vector<FedBuilds> kinds;
  for (const ReportBuild& build : report.builds) add_fed_build(build.name, build.feedback, kinds);
  return kinds;
}

std::string inputs_table(const Report& report) {
  std::vector<std::vector<Cell>> rows;
  for (const ReportInput& input : report.inputs) {
    const bool published = !input.name.empty() && input.kind != kCheckpointKind;
    rows.push_back(
        {text_cell(input.kind),
         {published ? file_link(report, input.name, input.name) : escape_markup(input.name.empty() ? "not published" : input.name), "text"},
         {element("code", input.sha256), "wrap"}});
  }
  if (rows.empty()) return "";
  return "<details>" + wrap("summary", "What went in" + element("span", counted(rows.size(), "file"))) +
         table("What went in", {"kind", "name ", "SHA-256 "}, rows) + "</details>\n";
}

std::string made_section(const Report& report) {
  std::string terms;
  if (!report.base_model.empty()) {
    terms += term("original", escape_markup(report.base_model));
    if (!report.revision.empty()) terms += term("revision", element("code", report.revision));
  }
  if (!report.made_by.empty()) terms += term("made by", escape_markup("quern " + report.made_by));
  for (const FedBuilds& fed : fed_builds(report)) {
    const std::string text = fed.feedback.text.empty() ? "a calibration text" : fed.feedback.text;
    terms += term("error feedback", escape_markup(feedback_sentence(fed, text)));
  }
  std::string recipes;
  for (const ReportBuild& build : report.builds) {
    if (!build.recipe.empty() && !build.name.starts_with(build.recipe))
      recipes += (recipes.empty() ? "" : "; ") + build.name + ": " + build.recipe;
  }
  if (!recipes.empty()) terms += term("recipes", escape_markup(recipes));
  if (report.beside_files) {
    terms += term("records", file_link(report, kManifestName, kManifestName) + ", " + file_link(report, kSumsName, kSumsName));
  }
  const std::string html = (terms.empty() ? "" : wrap("dl", "\n" + terms)) + inputs_table(report);
  return html.empty() ? "" : section("How it was made", html);
}

std::string sums_table(const Report& report) {
  std::vector<std::vector<Cell>> rows;
  for (const ReportBuild& build : report.builds) {
    for (const FileRecord& file : build.files) {
      rows.push_back(
          {{file_link(report, file.name, file.name)}, text_cell(format_size(file.size_bytes)), {element("code", file.sha256), "wrap"}});
    }
  }
  if (rows.empty()) return "";
  return "<details>" + wrap("summary", "Checksums" + element("span", counted(rows.size(), "file"))) +
         table("Checksums", {"file", "size", "SHA-256 "}, rows) + "</details>\n";
}

std::string folder_checks(const Report& report) {
  std::string html = element("p",
                             "Whether the files arrived as they were published; with any system's own tool, or with quern, which says what "
                             "is wrong and where:") +
                     commands(integrity_commands(!report.key_id.empty()));
  if (!report.key_id.empty()) {
    html += wrap("p", "Take the public key from its publisher, not from where the files are. The signature names this one: " +
                          element("code", report.key_id));
  }
  return html + element("p", "Whether they are what they say: re-derive tensors from the original checkpoint and compare every byte:") +
         commands({derivation_command(fed_builds(report))});
}

std::string verify_section(const Report& report) {
  std::string html = report.has_manifest ? folder_checks(report) : "";
  if (any_measured(report)) {
    const std::string text = report.text.empty() ? "TEXT" : shell_word(report.text);
    html += element("p", "To measure again, with the original, a file and the text:") +
            commands({"quern drift CHECKPOINT_DIR FILE.gguf --eval-text " + text + " --ctx " + std::to_string(report.n_ctx) + " --chunks " +
                      std::to_string(report.n_chunks)});
  }
  html += sums_table(report);
  return html.empty() ? "" : section("How to check it", html);
}

std::string words_section() {
  const std::pair<const char*, const char*> words[] = {
      {"KL",
       "Kullback-Leibler divergence: how different the probabilities of the next token are from the original's, in nats, as a mean over "
       "tokens. 0 only when both say exactly the same."},
      {"perplexity",
       "How unsure the model is of the text: as if choosing among this many equally likely tokens. Near the original's is good; alone it "
       "says little."},
      {"KL of worst 1 %", "The KL that one token in a hundred exceeds: rare but bad mistakes show here and not in the mean."},
      {"noise floor",
       "The original against itself with every activation nudged by a rounding. Correct programs differ by as much: below it, a file is as "
       "good as the original."},
      {"same top token", "How often the file and the original think the same token most likely."},
      {"bits per weight", "Size of the tensors divided by the number of weights. The original usually has 16 or 8."},
      {"weight error",
       "How far the weights are from the original's, as a share of their own size; 40 % is usual at two bits. It says little of the "
       "predictions: with error feedback it rises while they come closer to the original's."},
  };
  std::string terms;
  for (const auto& [name, text] : words) terms += term(name, escape_markup(text));
  return section("Words", wrap("dl", "\n" + terms));
}

}  // namespace

std::string report_html(const Report& report) {
  const std::string body = header(report) + choices(report) + files(report) + loss_section(report) + weights_section(report) +
                           experts_section(report) + made_section(report) + verify_section(report) + words_section() +
                           element("footer", "Made by quern report. This page needs no network and runs no script.");
  return document(report.model + ": quantized builds", body);
}

}  // namespace quern
