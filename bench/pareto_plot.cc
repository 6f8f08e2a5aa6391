// Draws size against divergence of the builds in a report of `quern drift --json`: plain mixes, shipped recipes, proposals of quern fit.
//
//   quern_pareto_plot TITLE drift.json > plot.svg

#include <algorithm>
#include <functional>
#include <iostream>

#include "formats/base/error.h"
#include "formats/base/file.h"
#include "verify/drift_report.h"
#include "verify/plot.h"

namespace {

using namespace quern;

// The builds whose names begin so, or that no prefix claims, as one series.
plot::Series series_of(const DriftReport& report, const std::string& name, const std::function<bool(const std::string&)>& belongs,
                       plot::Draw draw) {
  plot::Series series{.name = name, .points = {}, .draw = draw, .colour = -1, .muted = false};
  for (const DriftRow& row : report.rows) {
    if (row.size_bytes == 0 || !belongs(row.name)) continue;
    const Estimate kl = row.drift.statistics.kl;
    series.points.push_back(
        {static_cast<double>(row.size_bytes) / 1e6, kl.value, kl.error, draw == plot::Draw::kMarks ? row.name : "", row.name});
  }
  std::ranges::sort(series.points, {}, &plot::Point::x);
  return series;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: quern_pareto_plot TITLE drift.json > plot.svg\n";
    return 2;
  }
  try {
    const DriftReport report = drift_from_json(read_text_file(argv[2], uint64_t{1} << 30));
    const auto fitted = [](const std::string& name) { return name.starts_with("fit-"); };
    const auto dynamic = [](const std::string& name) { return name.starts_with("dynamic-"); };
    plot::XyPlot xy;
    xy.frame.title = argv[1];
    xy.frame.description = "Mean KL divergence from the original against the size of the file; lower and further left is better.";
    xy.frame.standalone = true;
    xy.x = {.label = "file size, MB"};
    xy.y = {.label = "mean KL divergence, nats", .log = true};
    xy.series = {series_of(
                     report, "plain mixes", [&](const std::string& n) { return !fitted(n) && !dynamic(n); }, plot::Draw::kMarks),
                 series_of(report, "dynamic recipes", dynamic, plot::Draw::kMarks),
                 series_of(report, "quern fit", fitted, plot::Draw::kLineAndMarks)};
    std::cout << plot::draw(xy);
  } catch (const Error& error) {
    std::cerr << "quern_pareto_plot: " << error.what() << '\n';
    return 3;
  }
  return 0;
}
