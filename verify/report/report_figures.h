#pragma once

#include <string>
#include <vector>

#include "verify/report/report.h"

namespace quern::page {

// The plots of a report, each for one width in pixels. Nothing to draw gives an empty string.

struct NamedReport {
  std::string name;  // of the series, empty when there is only one
  const Report* report;
};

std::string size_and_loss(const std::vector<NamedReport>& reports, double width);
std::string loss_distributions(const Report& report, double width);
std::string cumulative_loss(const std::vector<std::pair<std::string, const DriftRow*>>& rows, double width);
inline constexpr size_t kMostCurves = 6;
std::string expert_changes(const Report& report, double width);
std::string coverage_plot(const std::vector<ExpertCoverage>& coverage, double width);

// Relative errors by layer and kind of tensor, one scale for all builds of a report.
struct ErrorScale {
  double low = 0.0, high = 0.0;  // 0 when everything is exact
};
ErrorScale error_scale(const Report& report);
std::string error_map(const ReportBuild& build, const ErrorScale& scale, double width);

// "blk.12.attn_q.weight" is {12, "attn_q"}; what belongs to no layer has layer -1.
struct TensorPlace {
  int64_t layer = -1;
  std::string role;
};
TensorPlace place_of(const std::string& tensor);

}  // namespace quern::page
