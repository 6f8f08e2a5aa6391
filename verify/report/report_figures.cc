#include "verify/report/report_figures.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "formats/arch/stems.h"
#include "formats/base/resources.h"
#include "formats/statistics/importance.h"
#include "verify/draw/markup.h"
#include "verify/draw/plot.h"
#include "verify/draw/plot_scale.h"

// Reports become values of verify/draw/plot.h here: what is drawn, in which unit, with which words. How it is drawn is that room's
// business. Files may say anything, so numbers of curves, rows and layers are capped.

namespace quern::page {
namespace {

struct Unit {
  double bytes;
  const char* name;
};

Unit unit_of(const std::vector<NamedReport>& reports) {
  uint64_t smallest = std::numeric_limits<uint64_t>::max();
  for (const NamedReport& named : reports) {
    for (const ReportBuild& build : named.report->builds) {
      if (build.size_bytes > 0) smallest = std::min(smallest, build.size_bytes);
    }
  }
  for (const Unit unit : {Unit{1e9, "GB"}, Unit{1e6, "MB"}, Unit{1e3, "KB"}}) {
    if (static_cast<double>(smallest) >= unit.bytes) return unit;
  }
  return {1.0, "bytes"};
}

plot::Series points_of(const NamedReport& named, const Unit& unit) {
  plot::Series series{.name = named.name};
  for (const ReportBuild& build : named.report->builds) {
    if (!build.measured || build.size_bytes == 0) continue;
    const DriftStatistics& s = build.measured->drift.statistics;
    const std::string tooltip = build.name + ": " + format_size(build.size_bytes) + ", mean KL " + readable_number(s.kl.value, 3) + " nats";
    series.points.push_back({static_cast<double>(build.size_bytes) / unit.bytes, s.kl.value, s.kl.error, build.name, tooltip});
  }
  return series;
}

plot::Distribution distribution_of(const std::string& name, const DriftRow& row) {
  const DriftStatistics& s = row.drift.statistics;
  const auto total = static_cast<double>(std::max<uint64_t>(1, s.kl_histogram.total()));
  plot::Distribution out{.name = name};
  out.below = static_cast<double>(s.kl_histogram.below) / total;
  out.above = static_cast<double>(s.kl_histogram.above) / total;
  for (const uint64_t count : s.kl_histogram.counts) out.shares.push_back(static_cast<double>(count) / total);
  out.marks = {{s.kl.value, ""}};
  return out;
}

bool changes_experts(const DriftRow& row) { return row.drift.expert_changes.size() > 1; }

plot::Series experts_of(const std::string& name, const DriftRow& row) {
  plot::Series series{.name = name};
  const bool many = row.drift.expert_changes.size() > 24;
  series.draw = many ? plot::Draw::kLine : plot::Draw::kLineAndMarks;
  for (const ExpertChange& change : row.drift.expert_changes) {
    const std::string tooltip = name + ", layer " + std::to_string(change.layer) + ": " + readable_number(100.0 * change.share, 3) + " %";
    series.points.push_back({static_cast<double>(change.layer), change.share, 0.0, "", tooltip});
  }
  return series;
}

}  // namespace

std::string size_and_loss(const std::vector<NamedReport>& reports, double width) {
  const Unit unit = unit_of(reports);
  plot::XyPlot plot;
  plot.frame = {.title = "Size of each file and how far its predictions are from the original's", .width = width};
  plot.x = {.label = std::string("size, ") + unit.name, .log = true};
  plot.y = {.label = "mean KL from the original, nats (lower is better)", .log = true};
  size_t n_points = 0;
  for (const NamedReport& named : reports) {
    plot.series.push_back(points_of(named, unit));
    n_points += plot.series.back().points.size();
  }
  if (n_points == 0) return "";
  const Report& first = *reports.front().report;
  if (first.noise_floor) plot.rules.push_back({first.noise_floor->drift.statistics.kl.value, "noise floor: as good as the original", true});
  plot.frame.description = std::to_string(n_points) + " files; the table of files has the same figures.";
  return draw(plot);
}

std::string loss_distributions(const Report& report, double width) {
  plot::DistributionPlot plot;
  plot.frame = {.title = "How many tokens have which KL, for each file", .width = width};
  plot.x = {.label = "KL of one token, nats"};
  for (size_t i = 0; i <= KlHistogram::kBins; ++i) plot.edges.push_back(KlHistogram::edge(i));
  for (const ReportBuild& build : report.builds) {
    if (build.measured && build.measured->drift.statistics.kl_histogram.total() > 0) {
      plot.rows.push_back(distribution_of(build.name, *build.measured));
    }
  }
  if (plot.rows.empty()) return "";
  if (report.noise_floor && report.noise_floor->drift.statistics.kl_histogram.total() > 0) {
    plot.rows.push_back(distribution_of("noise floor", *report.noise_floor));
    plot.rows.back().colour = 2;
  }
  for (plot::Distribution& row : plot.rows) {
    if (!(row.marks.front().first > 0.0)) continue;
    row.marks.front().second = "mean";  // one name is enough
    break;
  }
  return draw(plot);
}

std::string cumulative_loss(const std::vector<std::pair<std::string, const DriftRow*>>& rows, double width) {
  plot::XyPlot plot;
  plot.frame = {.title = "Share of tokens up to a KL", .width = width};
  plot.x = {.label = "KL of one token, nats", .log = true};
  plot.y = {.label = "tokens with at most this KL", .low = 0.0, .high = 1.0, .percent = true};
  for (const auto& [name, row] : rows) {
    const KlHistogram& h = row->drift.statistics.kl_histogram;
    if (h.total() == 0) continue;
    plot::Series series{.name = name, .draw = plot::Draw::kLine};
    const auto total = static_cast<double>(h.total());
    double sum = static_cast<double>(h.below);
    for (size_t i = 0; i < KlHistogram::kBins; ++i) {
      const double before = sum;
      sum += static_cast<double>(h.counts[i]);
      if (before == 0.0 && sum == 0.0) continue;
      if (series.points.empty()) series.points.push_back({KlHistogram::edge(i), before / total});
      series.points.push_back({KlHistogram::edge(i + 1), sum / total});
      if (sum == total) break;
    }
    plot.series.push_back(series);
  }
  return plot.series.empty() ? "" : draw(plot);
}

std::string expert_changes(const Report& report, double width) {
  plot::XyPlot plot;
  plot.frame = {.title = "Tokens for which another set of experts was chosen, by layer", .width = width};
  plot.x = {.label = "layer", .integers = true};
  plot.y = {.label = "tokens with another set of experts", .low = 0.0, .percent = true};
  std::vector<const ReportBuild*> builds;
  for (const ReportBuild& build : report.builds) {
    if (build.measured && changes_experts(*build.measured)) builds.push_back(&build);
  }
  if (builds.empty()) return "";
  // As many as there are colours, spread over the sizes.
  const size_t n = std::min<size_t>(builds.size(), kMostCurves);
  for (size_t i = 0; i < n; ++i) {
    const ReportBuild& build = *builds[n == 1 ? 0 : i * (builds.size() - 1) / (n - 1)];
    plot.series.push_back(experts_of(build.name, *build.measured));
  }
  if (report.noise_floor && changes_experts(*report.noise_floor)) {
    plot.series.push_back(experts_of("noise floor", *report.noise_floor));
    plot.series.back().muted = true;
  }
  return draw(plot);
}

std::string coverage_plot(const std::vector<ExpertCoverage>& coverage, double width) {
  if (coverage.size() < 2) return "";
  plot::XyPlot plot;
  plot.frame = {.title = "Tokens of the calibration text per expert, by layer", .width = width};
  plot.x = {.label = "layer", .integers = true};
  plot.y = {.label = "tokens per expert", .log = true};
  plot::Series median{.name = "median expert", .draw = plot::Draw::kLine}, fewest{.name = "least used expert", .draw = plot::Draw::kLine};
  for (const ExpertCoverage& c : coverage) {
    median.points.push_back({static_cast<double>(c.layer), c.median_tokens});
    fewest.points.push_back({static_cast<double>(c.layer), static_cast<double>(c.min_tokens)});
  }
  plot.series = {median, fewest};
  plot.rules = {{static_cast<double>(kFewRows), "below: too few for a good estimate", true}};
  return draw(plot);
}

TensorPlace place_of(const std::string& tensor) {
  const auto [layer, name] = split_block_name(tensor);
  TensorPlace place{layer, std::string(name)};
  if (place.role.ends_with(".weight")) place.role.resize(place.role.size() - 7);
  return place;
}

ErrorScale error_scale(const Report& report) {
  plot::Extent extent;
  for (const ReportBuild& build : report.builds) {
    for (const ReportTensor& tensor : build.tensors) {
      if (!tensor.exact && place_of(tensor.name).layer >= 0) extent.include(tensor.relative_error, true);
    }
  }
  if (extent.low > extent.high) return {};
  // Six octaves tell the tensors of one build apart; smaller errors do not matter beside the largest.
  constexpr double kSpan = 64.0;
  return {extent.high / extent.low > 1.5 ? std::max(extent.low, extent.high / kSpan) : extent.high / 1.5, extent.high};
}

std::string error_map(const ReportBuild& build, const ErrorScale& scale, double width) {
  constexpr int64_t kMostLayers = 1000;
  constexpr size_t kMostRoles = 200;  // a model has a few dozen; a file may say anything
  int64_t n_layers = 0;
  std::vector<std::string> roles;  // that are not exact everywhere, in file order
  for (const ReportTensor& tensor : build.tensors) {
    const TensorPlace place = place_of(tensor.name);
    if (place.layer >= kMostLayers || roles.size() > kMostRoles) return "";
    n_layers = std::max(n_layers, place.layer + 1);
    if (place.layer >= 0 && !tensor.exact && std::ranges::find(roles, place.role) == roles.end()) roles.push_back(place.role);
  }
  if (roles.empty()) return "";
  plot::HeatMap map;
  map.frame = {.title = "Relative error of the weights of " + build.name + " by tensor and layer", .width = width};
  map.row_label = "tensor";
  map.column_label = "layer";
  map.value_label = "relative error of the weights";
  map.zero_name = "exact";
  map.percent = true;
  map.tooltips = width > 500.0;  // nothing hovers on a phone
  map.low = scale.low;
  map.high = scale.high;
  map.rows = roles;
  for (int64_t layer = 0; layer < n_layers; ++layer) map.columns.push_back(std::to_string(layer));
  map.values.assign(roles.size() * map.columns.size(), std::numeric_limits<double>::quiet_NaN());
  for (const ReportTensor& tensor : build.tensors) {
    const TensorPlace place = place_of(tensor.name);
    const auto row = static_cast<size_t>(std::ranges::find(roles, place.role) - roles.begin());
    if (place.layer < 0 || row == roles.size()) continue;
    map.values[row * map.columns.size() + static_cast<size_t>(place.layer)] = tensor.exact ? 0.0 : tensor.relative_error;
  }
  return draw(map);
}

}  // namespace quern::page
