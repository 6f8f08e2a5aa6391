// Draws size against divergence of the builds in reports of `quern drift --json`: files of llama-quantize (whose names begin with
// "llamacpp-"), plain mixes, shipped recipes, proposals of quern fit. Further reports add their proposals under a name of their own.
//
//   quern_pareto_plot TITLE drift.json ["NAME=other.json" ...] > plot.svg

#include <algorithm>
#include <functional>
#include <iostream>

#include "formats/base/error.h"
#include "formats/base/file.h"
#include "verify/draw/plot.h"
#include "verify/drift/drift_report.h"

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

DriftReport read_report(const std::string& path) { return drift_from_json(read_text_file(path, uint64_t{1} << 30)); }

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: quern_pareto_plot TITLE drift.json [NAME=other.json ...] > plot.svg\n";
    return 2;
  }
  try {
    const DriftReport report = read_report(argv[2]);
    const auto begins = [](const char* prefix) { return [prefix](const std::string& name) { return name.starts_with(prefix); }; };
    const auto fitted = begins("fit-"), dynamic = begins("dynamic-"), reference = begins("llamacpp-");
    plot::XyPlot xy;
    xy.frame.title = argv[1];
    xy.frame.description = "Mean KL divergence from the original against the size of the file; lower and further left is better.";
    xy.frame.standalone = true;
    xy.x = {.label = "file size, MB"};
    xy.y = {.label = "mean KL divergence, nats", .log = true};
    xy.series = {
        series_of(report, "llama-quantize", reference, plot::Draw::kLineAndMarks),
        series_of(
            report, "plain mixes", [&](const std::string& n) { return !fitted(n) && !dynamic(n) && !reference(n); }, plot::Draw::kMarks),
        series_of(report, "dynamic recipes", dynamic, plot::Draw::kMarks),
        series_of(report, "quern fit", fitted, plot::Draw::kLineAndMarks)};
    for (int i = 3; i < argc; ++i) {
      const std::string argument = argv[i];
      const size_t equals = argument.find('=');
      if (equals == std::string::npos) throw Error(ErrorKind::kUsage, "'" + argument + "' is not NAME=FILE");
      xy.series.push_back(
          series_of(read_report(argument.substr(equals + 1)), argument.substr(0, equals), fitted, plot::Draw::kLineAndMarks));
    }
    std::erase_if(xy.series, [](const plot::Series& series) { return series.points.empty(); });
    std::cout << plot::draw(xy);
  } catch (const Error& error) {
    std::cerr << "quern_pareto_plot: " << error.what() << '\n';
    return 3;
  }
  return 0;
}
