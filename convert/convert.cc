#include "convert/convert.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>

#include "convert/fill/lists.h"
#include "convert/fill/run_files.h"
#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/base/sha256.h"

namespace quern {
namespace {

// A source that changed while it was read gives a mixture of two models.
void check_unchanged(const ModelSource& source, RunFiles& files) {
  for (const SourceFile& file : source.files()) {
    const InputFile now(file.path);
    if (now.size_bytes() != file.size_bytes || now.mtime_ns() != file.mtime_ns) {
      files.drop();
      throw Error(ErrorKind::kIo, "changed while it was being read").file(file.path.string());
    }
  }
}

OutputReport report_output(const Plan& plan, size_t index, const FinishedOutput& finished, const std::vector<TensorFigures>& figures) {
  const PlannedOutput& output = plan.outputs[index];
  OutputReport report;
  report.mix = output.mix;
  report.lossless = output.lossless;
  const std::vector<OutputFileInfo> files = files_of(output);
  for (size_t f = 0; f < files.size(); ++f) {
    const bool is_side_file = f >= output.files.size();
    report.files.push_back({files[f].name, files[f].size_bytes,
                            is_side_file ? sha256_hex(output.side_files[f - output.files.size()].bytes) : finished.files[f].sha256});
    report.size_bytes += files[f].size_bytes;
  }
  report.bits_per_weight = 8.0 * static_cast<double>(output.tensor_bytes) / static_cast<double>(plan.n_weights());
  double squared_error = 0, energy = 0;
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    energy += figures[t].energy;
    squared_error += figures[t].outputs[index].squared_error;
    const Cut& cut = figures[t].outputs[index].cut;
    if (cut.n > 0) report.cuts.push_back({plan.tensors[t].name, output.tensors[t].type, cut});
    if (!figures[t].outputs[index].exact) continue;
    ++report.exact_tensors;
    report.exact_weights += plan.tensors[t].shape.n_elements();
  }
  report.relative_error = energy > 0 ? std::sqrt(squared_error / energy) : 0;
  return report;
}

// A folder that lacks them does not load, so they come last.
void write_side_files(const Plan& plan, const PlannedOutput& output) {
  const std::vector<OutputFileInfo> files = files_of(output);
  for (size_t f = 0; f < output.side_files.size(); ++f) {
    write_file_atomically(plan.folder / files[output.files.size() + f].name, output.side_files[f].bytes, OutputFile::Overwrite::kAllow);
  }
}

}  // namespace

std::vector<OutputReport> report_outputs(const Plan& plan, const std::vector<FinishedOutput>& finished,
                                         const std::vector<TensorFigures>& figures, const std::vector<double>& encode_seconds) {
  std::vector<OutputReport> reports;
  for (size_t i = 0; i < plan.outputs.size(); ++i) {
    reports.push_back(report_output(plan, i, finished[i], figures));
    reports.back().encode_seconds = encode_seconds[i];
  }
  return reports;
}

void publish_outputs(const Plan& plan, std::vector<std::unique_ptr<OutputWriter>>& writers, const std::vector<FinishedOutput>& finished,
                     const std::vector<TensorFigures>& figures) {
  for (const std::unique_ptr<OutputWriter>& writer : writers) writer->commit();
  for (const PlannedOutput& output : plan.outputs) write_side_files(plan, output);
  if (plan.lists) write_lists(plan, finished, figures);
}

std::vector<std::string> find_zero_tensors(const Plan& plan, const std::vector<TensorFigures>& figures) {
  std::vector<std::string> names;
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    const PlannedTensor& tensor = plan.tensors[t];
    if (tensor.integer || tensor.shape.rank() < 2) continue;
    const int64_t n_zero = std::ranges::count_if(figures[t].slices, [](const Figures& slice) { return slice.energy == 0; });
    const std::string count = std::to_string(n_zero) + " of its " + std::to_string(tensor.n_slices) + " slices";
    if (figures[t].energy == 0) {
      names.push_back("'" + tensor.name + "'");
    } else if (n_zero > 0) {
      names.push_back("'" + tensor.name + "' (" + count + ")");
    }
  }
  return names;
}

void forget_run(const Plan& plan) {
  std::error_code ignored;
  std::filesystem::remove(journal_path(plan), ignored);
}

ConvertReport run_plan(const ModelSource& source, const Plan& plan, Progress& progress, const Calibration& calibration, AtEnd at_end) {
  const auto start = std::chrono::steady_clock::now();
  check_calibration(plan, calibration);
  const uint64_t read_before = source.bytes_read();
  make_folder(journal_path(plan).parent_path());
  const Chunks chunks(plan);
  RunFiles files(plan, chunks, progress);
  const Chunks::Range left = {files.n_chunks_done(), chunks.count()};

  progress.begin("converting", chunks.source_bytes(left));
  const PipelineResult result =
      files.guarded([&] { return run_chunks(source, plan, calibration, chunks, left, files, progress, files.take_figures_done()); });
  progress.end();
  const std::vector<FinishedOutput> finished = files.guarded([&] { return files.finish(result); });
  check_unchanged(source, files);
  files.guarded([&] { publish_outputs(plan, files.writers(), finished, result.figures); });  // from here on the files have their names
  files.end(at_end == AtEnd::kRemember);

  ConvertReport report;
  report.outputs = report_outputs(plan, finished, result.figures, result.encode_seconds);
  report.zero_tensors = find_zero_tensors(plan, result.figures);
  report.notes = plan.notes;
  report.warnings = plan.warnings;
  for (const FeedbackLog::Outcome& outcome : result.feedback) report.feedback.push_back({source.tensors()[outcome.tensor].name, outcome});
  report.stored_bytes = plan.source_bytes();
  report.bytes_read = source.bytes_read() - read_before;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace quern
