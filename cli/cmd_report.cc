#include <filesystem>
#include <iostream>
#include <memory>

#include "cli/cli.h"
#include "convert/record/build_record_json.h"
#include "formats/base/file.h"
#include "formats/statistics/imatrix.h"
#include "verify/records/manifest.h"
#include "verify/report/report.h"

namespace quern::cli {
namespace {

namespace fs = std::filesystem;

struct ReportOptions {
  std::vector<std::string> inputs;
  std::vector<std::string> tensors;
  std::string imatrix;
  std::string output = "report.html";
  bool force = false;
};

std::vector<BuildRecord> read_records(const std::vector<std::string>& paths) {
  constexpr uint64_t kMaxBytes = uint64_t{1} << 30;
  std::vector<BuildRecord> records;
  for (const std::string& path : paths) {
    try {
      records.push_back(build_record_from_json(read_text_file(path, kMaxBytes)));
    } catch (Error& error) {
      error.file(path);
      throw;
    }
  }
  return records;
}

int run_report(const ReportOptions& options) {
  if (options.inputs.size() > 2) throw Error(ErrorKind::kUsage, "give one file to report on, or two to compare");
  const auto overwrite = options.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse;
  check_output_path(options.output, overwrite);
  const std::vector<BuildRecord> records = read_records(options.tensors);
  std::vector<Report> reports;
  for (const std::string& input : options.inputs) {
    const std::string path = std::filesystem::is_directory(input) ? input + "/" + kManifestName : input;
    std::clog << "quern: reading " << printable(path) << '\n';
    reports.push_back(read_report(path, records));
    if (!options.imatrix.empty()) reports.back().coverage = expert_coverage(read_imatrix(options.imatrix));
  }
  const fs::path page = fs::absolute(options.output).lexically_normal();
  Report& first = reports.front();
  first.beside_files = first.has_manifest && fs::absolute(options.inputs[0]).lexically_normal().parent_path() == page.parent_path();
  const std::string html = reports.size() == 2 ? comparison_html(reports[0], reports[1]) : report_html(reports[0]);
  write_file_atomically(options.output, html, overwrite);
  std::clog << "quern: wrote " << printable(options.output) << '\n';
  return 0;
}

}  // namespace

void add_report(CLI::App& app, Context& context) {
  const auto options = std::make_shared<ReportOptions>();
  CLI::App* verb = app.add_subcommand("report", "Draw measured builds as a page for people");
  verb->group("Measure")->footer("quern report drift.json --tensors out/*.tensors.json -o report.html");
  verb->add_option("FILES", options->inputs, "JSON of drift or published folder; 2: compare")->required()->group("Input");
  verb->add_option("--tensors", options->tensors, "tensor lists that convert wrote")->type_name("LISTS")->group("Input");
  verb->add_option("--imatrix", options->imatrix, "adds which experts calibration reached")->type_name("FILE")->group("Input");
  verb->add_option("-o,--output", options->output, "default: report.html")->type_name("FILE")->group("Output");
  verb->add_flag("--force", options->force, "overwrite the output")->group("Output");
  verb->callback([options, &context] { context.command = [options] { return run_report(*options); }; });
}

}  // namespace quern::cli
