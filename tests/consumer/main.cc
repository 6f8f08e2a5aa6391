// The example of docs/library.md: converts a model, measures what the build lost, and derives it again from the model.
//
//   consumer MODEL TEXT FOLDER

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>

#include <quern/convert/build.h>
#include <quern/formats/base/error.h>
#include <quern/formats/base/progress.h>
#include <quern/formats/model/model_facts.h>
#include <quern/formats/model/model_source.h>
#include <quern/verify/drift/chunked_text.h>
#include <quern/verify/drift/drift_job.h>
#include <quern/verify/intact/verify.h>

namespace {

namespace fs = std::filesystem;

// Writes FOLDER/NAME-Q4_K_M.gguf and returns its path; empty when something is wrong with the model or the options.
fs::path convert(const fs::path& model, const fs::path& folder) {
  quern::BuildOptions options;
  options.model = model;
  options.plan.output = folder;
  options.plan.types = {"Q4_K_M"};
  quern::OpenedBuild opened = quern::open_build(options);  // reads headers only
  for (const quern::Problem& problem : opened.problems) std::cerr << problem.message << '\n';
  if (!opened.problems.empty()) return {};
  const quern::ConvertReport report = quern::run_build(opened, *opened.plan, quern::no_progress());
  const quern::OutputReport& output = report.outputs.front();
  std::printf("%s: %.2f bits per weight\n", output.files.front().name.c_str(), output.bits_per_weight);
  return folder / output.files.front().name;
}

void measure_drift(const fs::path& model, const fs::path& text_file, const fs::path& file) {
  const std::unique_ptr<quern::ModelSource> original = quern::open_model(model), build = quern::open_model(file);
  const quern::ChunkedText text = quern::load_text(*original, {.file = text_file, .ctx = 128, .max_chunks = 4});
  const quern::EvalOptions evaluation{.memory_bytes = quern::default_evaluation_memory()};
  quern::DriftJob job(*original, model.filename().string(), text_file.filename().string(), text, evaluation, quern::no_progress());
  job.add(*build, file.filename().string(), quern::size_on_disk(*build), quern::no_progress());
  for (const quern::DriftRow& row : job.report().rows) {
    const quern::DriftStatistics& s = row.drift.statistics;
    std::printf("%s: mean KL %.6f +-%.6f, same top token %.1f %%\n", row.name.c_str(), s.kl.value, s.kl.error, 100 * s.same_top.value);
  }
}

bool verify(const fs::path& model, const fs::path& folder) {
  quern::VerifyOptions options;
  options.path = folder;
  options.source = model;
  options.sample = 1;  // every chunk of every tensor is made again and compared
  const quern::VerifyReport report = quern::verify(options, quern::no_progress());
  for (const quern::Finding& finding : report.findings) std::printf("%s\n", quern::to_string(finding).c_str());
  for (const quern::Check& check : report.checks) std::printf("%s: %s\n", check.name.c_str(), quern::name_of(check.state));
  return report.count(quern::Verdict::kDamage) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  try {
    const fs::path file = convert(argv[1], argv[3]);
    if (file.empty()) return 1;
    measure_drift(argv[1], argv[2], file);
    return verify(argv[1], argv[3]) ? 0 : 1;
  } catch (const quern::Error& error) {
    std::cerr << error.what() << '\n';
    return 3;
  }
}
