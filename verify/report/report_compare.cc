#include <algorithm>
#include <cmath>
#include <map>

#include "formats/base/resources.h"
#include "verify/draw/markup.h"
#include "verify/report/report.h"
#include "verify/report/report_figures.h"
#include "verify/report/report_page.h"

// Two reports side by side: what is the same, what is better, what is worse, and by more than chance. A difference counts from two standard
// errors on, the errors of both taken as independent; that calls some real differences none, but hardly ever chance a difference. A report
// does not hold what would be needed to pair them token by token. Quantiles have no errors and are shown without a verdict, and so are
// errors of weights where error feedback trades them for better predictions. Losses that were not measured alike stand side by side and are
// not compared. Builds are paired by name, or as the only ones of their reports.

namespace quern {
namespace {

using namespace page;

struct Pair {
  const ReportBuild* before;
  const ReportBuild* after;
};

std::vector<Pair> pairs_of(const Report& before, const Report& after) {
  if (before.builds.size() == 1 && after.builds.size() == 1) return {{&before.builds.front(), &after.builds.front()}};
  std::vector<Pair> pairs;
  for (const ReportBuild& build : before.builds) {
    const auto same = std::ranges::find_if(after.builds, [&](const ReportBuild& other) { return other.name == build.name; });
    if (same != after.builds.end()) pairs.push_back({&build, &*same});
  }
  return pairs;
}

std::string without_partner(const Report& report, const std::vector<Pair>& pairs) {
  std::string out;
  for (const ReportBuild& build : report.builds) {
    if (std::ranges::none_of(pairs, [&](const Pair& p) { return p.before == &build || p.after == &build; })) {
      out += (out.empty() ? "" : ", ") + build.name;
    }
  }
  return out;
}

enum class Verdict { kSame, kBetter, kWorse };

struct Words {
  const char* better = "better";
  const char* worse = "worse";
};
constexpr Words kOfSizes = {"smaller", "larger"};

// The arrow says where the figure went, the colour and the word what that means.
Cell verdict_cell(Verdict verdict, const std::string& change, Words words = {}) {
  if (verdict == Verdict::kSame) return {escape_markup(change), "same"};
  const bool better = verdict == Verdict::kBetter;
  const std::string arrow = change.starts_with('+') ? "▴ " : change.starts_with("−") ? "▾ " : "";
  return {arrow + escape_markup(change) + " " + (better ? words.better : words.worse), better ? "better" : "worse"};
}

bool negligible(double before, double after) { return std::fabs(after - before) < 0.001 * std::fabs(before); }

// Both were measured on the same tokens, so taking their errors as independent understates how sure a difference is.
Verdict judge(Estimate before, Estimate after, bool lower_is_better) {
  const double change = after.value - before.value;
  if (change == 0.0 || negligible(before.value, after.value)) return Verdict::kSame;
  if (!(std::fabs(change) > 2.0 * std::hypot(before.error, after.error))) return Verdict::kSame;
  return (change < 0.0) == lower_is_better ? Verdict::kBetter : Verdict::kWorse;
}

std::string relative_change(double before, double after) {
  if (before == after) return "equal";
  if (!(before > 0.0) || !std::isfinite(after / before)) return "changed";
  const double percent = 100.0 * (after / before - 1.0);
  return (percent > 0.0 ? "+" : "") + readable_number(percent, 2) + " %";
}

std::vector<Cell> figure_row(const std::string& name, Estimate before, Estimate after, int decimals, double scale = 1.0,
                             bool lower_is_better = true, std::string_view unit = {}, Words words = {}) {
  const Verdict verdict = judge(before, after, lower_is_better);
  const std::string change = relative_change(before.value, after.value);
  const bool unclear = verdict == Verdict::kSame && before.value != after.value && before.error + after.error > 0.0;
  return {text_cell(name), number_cell(before.value, before.error, decimals, scale, unit),
          number_cell(after.value, after.error, decimals, scale, unit),
          verdict_cell(verdict, unclear ? change + ", within error" : change, words)};
}

int decimals_for(double a, double b) {
  double smallest = 1.0;
  for (const double value : {a, b}) {
    if (value > 0.0) smallest = std::min(smallest, value);
  }
  return std::clamp(static_cast<int>(std::ceil(-std::log10(smallest))) + 1, 3, 7);
}

// The same row without a verdict.
std::vector<Cell> unjudged(std::vector<Cell> row, const std::string& change) {
  row.back() = text_cell(change, "same");
  return row;
}

// Why the losses of the two say nothing of each other; empty when they do.
std::string why_incomparable(const Report& before, const Report& after) {
  if (before.text != after.text) return "on different texts";
  if (before.n_ctx != after.n_ctx || before.n_chunks != after.n_chunks) return "on different chunks";
  const auto perplexity = [](const Report& report) {  // of the original, which every measurement has
    const auto row = std::ranges::find_if(report.builds, [](const ReportBuild& build) { return build.measured.has_value(); });
    return row == report.builds.end() ? 0.0 : row->measured->drift.statistics.ppl_original.value;
  };
  const double a = perplexity(before), b = perplexity(after);
  const bool both_named = !before.base_model.empty() && !after.base_model.empty();
  if (both_named && before.base_model != after.base_model) return "against different originals";
  if (a > 0.0 && b > 0.0) return negligible(a, b) ? "" : "against different originals, or on different texts of one name";
  return !both_named && before.model != after.model ? "against different originals" : "";
}

std::string figures_table(const Report& before, const Report& after, const Pair& pair) {
  const ReportBuild &a = *pair.before, &b = *pair.after;
  const bool comparable = why_incomparable(before, after).empty();
  std::vector<std::vector<Cell>> rows;
  const auto sizes = judge({static_cast<double>(a.size_bytes), 0.0}, {static_cast<double>(b.size_bytes), 0.0}, true);
  rows.push_back({text_cell("size"), text_cell(format_size(a.size_bytes)), text_cell(format_size(b.size_bytes)),
                  verdict_cell(sizes, relative_change(static_cast<double>(a.size_bytes), static_cast<double>(b.size_bytes)), kOfSizes)});
  rows.push_back(figure_row("bits per weight", {a.bits_per_weight, 0.0}, {b.bits_per_weight, 0.0}, 3, 1.0, true, "", kOfSizes));
  if (a.relative_error && b.relative_error) {
    std::vector<Cell> row = figure_row("weight error", {*a.relative_error, 0.0}, {*b.relative_error, 0.0}, 3, 100.0, true, "%");
    const bool traded = a.feedback || b.feedback;
    rows.push_back(traded ? unjudged(std::move(row), relative_change(*a.relative_error, *b.relative_error)) : std::move(row));
  }
  if (a.measured && b.measured) {
    const DriftStatistics &s = a.measured->drift.statistics, &t = b.measured->drift.statistics;
    const auto add = [&](std::vector<Cell> row) { rows.push_back(comparable ? std::move(row) : unjudged(std::move(row), "")); };
    const auto quantile_row = [&](const char* name, double x, double y) {
      add({text_cell(name), number_cell(x, 0.0, decimals_for(x, y)), number_cell(y, 0.0, decimals_for(x, y)),
           text_cell(relative_change(x, y), "same")});
    };
    add(figure_row("mean KL, nats", s.kl, t.kl, decimals_for(s.kl.value, t.kl.value)));
    quantile_row("median KL", s.kl_median, t.kl_median);
    quantile_row("KL of worst 1 %", s.kl_99, t.kl_99);
    quantile_row("KL of worst 0.1 %", s.kl_999, t.kl_999);
    add(figure_row("perplexity", s.ppl, t.ppl, 3));
    add(figure_row("same top token", s.same_top, t.same_top, 2, 100.0, false, "%"));
  }
  return table("Figures of both", {"", before.origin, after.origin, "change"}, rows);
}

struct TensorChange {
  const ReportTensor* before;
  const ReportTensor* after;
  double weight;  // how much it matters: the logarithm of the ratio of errors
};

std::vector<TensorChange> tensor_changes(const Pair& pair) {
  std::map<std::string_view, const ReportTensor*> after;
  for (const ReportTensor& b : pair.after->tensors) after.emplace(b.name, &b);
  std::vector<TensorChange> changes;
  for (const ReportTensor& a : pair.before->tensors) {
    const auto named = after.find(a.name);
    const ReportTensor* found = named == after.end() ? nullptr : named->second;
    if (found == nullptr || (found->type == a.type && found->relative_error == a.relative_error)) continue;
    const double tiny = 1e-9;
    changes.push_back({&a, found, std::fabs(std::log((found->relative_error + tiny) / (a.relative_error + tiny)))});
  }
  std::ranges::stable_sort(changes, std::ranges::greater(), &TensorChange::weight);
  return changes;
}

std::string tensor_table(const Report& before, const Report& after, const Pair& pair) {
  constexpr size_t kMost = 30;
  const std::vector<TensorChange> changes = tensor_changes(pair);
  if (changes.empty()) return "";
  const auto described = [](const ReportTensor& t) {
    return t.type + ", " + (t.exact ? "exact" : readable_number(100.0 * t.relative_error, 3) + " %");
  };
  const bool traded = pair.before->feedback || pair.after->feedback;
  std::vector<std::vector<Cell>> rows;
  for (const TensorChange& change : changes) {
    if (rows.size() == kMost) break;
    const Verdict verdict =
        traded ? Verdict::kSame : judge({change.before->relative_error, 0.0}, {change.after->relative_error, 0.0}, true);
    rows.push_back({text_cell(change.before->name), text_cell(described(*change.before)), text_cell(described(*change.after)),
                    verdict_cell(verdict, relative_change(change.before->relative_error, change.after->relative_error))});
  }
  std::string heading = std::to_string(changes.size()) + (changes.size() == 1 ? " tensor differs" : " tensors differ");
  if (changes.size() > kMost) heading += "; the " + std::to_string(kMost) + " with the largest change of error";
  return "<details>" + wrap("summary", escape_markup(heading)) +
         table("Tensors that differ", {"tensor", before.origin, after.origin, "change of error"}, rows) + "</details>\n";
}

std::string pair_section(const Report& before, const Report& after, const Pair& pair) {
  const std::string& a = pair.before->name;
  const std::string& b = pair.after->name;
  std::string html = figures_table(before, after, pair);
  if (pair.before->measured && pair.after->measured && why_incomparable(before, after).empty()) {
    const std::vector<std::pair<std::string, const DriftRow*>> rows = {{before.origin + ": " + a, &*pair.before->measured},
                                                                       {after.origin + ": " + b, &*pair.after->measured}};
    if (!cumulative_loss(rows, kWide).empty()) {
      html +=
          figure([&](double width) { return cumulative_loss(rows, width); }, "A curve further left and higher is closer to the original.");
    }
  }
  html += tensor_table(before, after, pair);
  return section(a == b ? a : a + " and " + b, html);
}

std::string warnings(const Report& before, const Report& after) {
  const std::string why = why_incomparable(before, after);
  return why.empty() ? "" : element("p", "The two were measured " + why + ": their losses cannot be compared.", "warning");
}

std::string compared_sentence(const std::vector<Pair>& pairs) {
  int better = 0, worse = 0, same = 0;
  for (const Pair& pair : pairs) {
    if (!pair.before->measured || !pair.after->measured) continue;
    const Verdict verdict = judge(pair.before->measured->drift.statistics.kl, pair.after->measured->drift.statistics.kl, true);
    ++(verdict == Verdict::kBetter ? better : verdict == Verdict::kWorse ? worse : same);
  }
  if (better + worse + same == 0) return "Nothing that both measured.";
  if (better + worse == 0) return "No file is clearly closer to the original or further from it.";
  std::string out;
  const auto add = [&](int n, const char* what) {
    if (n == 0) return;
    out += out.empty() ? std::to_string(n) + (n == 1 ? " file is " : " files are ") + what : ", " + std::to_string(n) + " " + what;
  };
  add(better, "closer to the original");
  add(worse, "further from the original");
  add(same, "not clearly different");
  return out + ".";
}

}  // namespace

std::string comparison_html(const Report& first, const Report& second) {
  Report before = first, after = second;
  if (before.origin == after.origin) {
    before.origin = "A";
    after.origin = "B";
  }
  const std::vector<Pair> pairs = pairs_of(before, after);
  const bool comparable = why_incomparable(before, after).empty();
  std::string body =
      wrap("header", element("p", "Two reports compared", "eyebrow") +
                         element("h1", before.model == after.model ? before.model : before.model + " and " + after.model) +
                         element("p", comparable ? compared_sentence(pairs) : "Sizes can be compared, losses cannot.", "lead") +
                         element("p",
                                 "Left: " + before.origin + (before.made_by.empty() ? "" : ", quern " + before.made_by) +
                                     ". Right: " + after.origin + (after.made_by.empty() ? "" : ", quern " + after.made_by) + ".",
                                 "meta"));
  body += warnings(before, after);
  const std::vector<NamedReport> both = {{before.origin, &before}, {after.origin, &after}};
  if (comparable && !size_and_loss(both, kWide).empty()) {
    body += section("Size against loss",
                    figure([&](double width) { return size_and_loss(both, width); }, "Further down and further left is better."));
  }
  for (const Pair& pair : pairs) body += pair_section(before, after, pair);
  for (const Report* report : {&before, &after}) {
    const std::string alone = without_partner(*report, pairs);
    if (!alone.empty()) body += element("p", "Only in " + report->origin + ": " + alone + ".", "note");
  }
  body += element("p",
                  "Better and worse are said of differences of more than two standard errors, the errors taken as independent, and of at "
                  "least 0.1 %.",
                  "note");
  body += element("footer", "Made by quern report. This page needs no network and runs no script.");
  return document(before.model + ": comparison", body);
}

}  // namespace quern
