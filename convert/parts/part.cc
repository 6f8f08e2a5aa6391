#include "convert/parts/part.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "convert/fill/output_writer.h"
#include "convert/parts/part_index.h"
#include "convert/plan/layout.h"
#include "formats/base/sha256.h"

// A part is the blocks of its chunks, output after output, with an index of sums and figures; nothing of a container is in it. A merge
// reads the sections of all parts in order, chunk by chunk, and hands them to the writer of each output, which lays them out as it does
// in a single run. Figures are added exactly and rounded once, so they have the bits of a single run too. The index gets its name last,
// and a mark of its own stays while a merge goes on: an interrupted run can be told from a finished one.

namespace quern {
namespace fs = std::filesystem;
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

class PartSink final : public ChunkSink {
 public:
  PartSink(fs::path path, OutputFile::Overwrite overwrite, const std::vector<PartSection>& sections)
      : file_(std::move(path), overwrite), hashes_(sections.size()) {
    for (const PartSection& section : sections) positions_.push_back(section.offset);
  }

  void write(size_t output, int64_t, std::span<const std::byte> bytes) override {
    file_.write_at(positions_[output], bytes);
    positions_[output] += bytes.size();
  }
  void hash(size_t output, std::span<const std::byte> bytes) override { hashes_[output].update(bytes); }

  std::string sha256(size_t output) { return hashes_[output].finish_hex(); }
  void commit() { file_.commit(); }

 private:
  OutputFile file_;
  std::vector<uint64_t> positions_;
  std::vector<Sha256> hashes_;
};

// A part as it lies on disk.
struct Part : PartIndex {
  fs::path index;
  fs::path data;
};

// What all parts say about the tensors, put together.
struct PartFigures {
  std::vector<TensorFigures> figures;
  std::map<Unit, PartialFigures> partial;
};

Part read_part(const Plan& plan, const std::string& id, const fs::path& path, PartFigures& figures) {
  try {
    return {part_index_from_json(plan, id, read_text_file(path, kMaxIndexBytes), figures.figures, figures.partial), path,
            fs::path(path).replace_extension(".bin")};
  } catch (Error& error) {
    error.file(path.string());
    throw;
  }
}

std::vector<Part> read_parts(const Plan& plan, const std::string& id, const std::vector<fs::path>& indexes, PartFigures& figures) {
  std::vector<Part> parts;
  figures.figures.resize(plan.tensors.size());
  for (const fs::path& path : indexes) parts.push_back(read_part(plan, id, path, figures));
  if (parts.empty()) throw Error(ErrorKind::kUsage, "no parts given");
  std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.k < b.k; });
  const int64_t n = parts.front().n;
  for (int64_t k = 1; k <= n; ++k) {
    const auto count = std::count_if(parts.begin(), parts.end(), [k](const Part& part) { return part.k == k; });
    const std::string name = "part " + std::to_string(k) + " of " + std::to_string(n);
    if (count == 0) throw Error(ErrorKind::kFormat, name + " is missing");
    if (count > 1) throw Error(ErrorKind::kFormat, name + " was given twice");
  }
  for (const Part& part : parts) {
    if (part.n != n)
      throw Error(ErrorKind::kFormat, "is a part of " + std::to_string(part.n) + ", not of " + std::to_string(n)).file(part.index.string());
  }
  return parts;
}

std::vector<TensorFigures> round_figures(const Plan& plan, PartFigures all) {
  std::vector<TensorFigures>& figures = all.figures;
  for (const auto& [unit, sum] : all.partial) set_figures(plan.tensors[unit.tensor], unit, sum.rounded(), figures[unit.tensor]);
  for (size_t t = 0; t < figures.size(); ++t) {
    figures[t].outputs.resize(plan.outputs.size());
    if (plan.tensors[t].n_slices > 1) figures[t].slices.resize(static_cast<size_t>(plan.tensors[t].n_slices));
    for (Figures& slice : figures[t].slices) slice.outputs.resize(plan.outputs.size());
  }
  return std::move(figures);
}

void check_data_files(const std::vector<Part>& parts) {
  for (const Part& part : parts) {
    const InputFile data(part.data);
    const uint64_t expected = part.sections.back().offset + part.sections.back().size;
    if (data.size_bytes() != expected) {
      throw Error(ErrorKind::kFormat, "has " + std::to_string(data.size_bytes()) + " bytes, expected " + std::to_string(expected))
          .file(part.data.string());
    }
  }
}

// One output from the sections of all parts, in order and in the chunks that they were made of, which are whole rows.
FinishedOutput assemble(const Plan& plan, size_t output, const std::vector<Part>& parts, OutputWriter& writer, Progress& progress) {
  TensorHasher hasher(plan, output);
  const Chunks chunks(plan);
  std::vector<std::byte> buffer;
  for (const Part& part : parts) {
    const InputFile data(part.data);
    const Chunks::Range range = chunks.part(part.k - 1, part.n);
    uint64_t offset = part.sections[output].offset;
    Sha256 hash;
    for (int64_t chunk = range.first; chunk < range.last; ++chunk) {
      throw_if_interrupted();
      buffer.resize(static_cast<size_t>(chunks.output_bytes(output, chunks[chunk])));
      data.read_at(offset, buffer);
      hash.update(buffer);
      writer.append(buffer);
      hasher.append(buffer);
      progress.advance(buffer.size());
      offset += buffer.size();
    }
    if (hash.finish_hex() != part.sections_sha256[output]) {
      throw Error(ErrorKind::kFormat, "data of output " + plan.outputs[output].mix + " is damaged").file(part.data.string());
    }
  }
  return {writer.finish(), hasher.finish()};
}

// Has its part file while a merge goes on, and after one that ended between the names of two outputs. Never gets its own name.
fs::path merge_mark(const Plan& plan) { return plan.folder / (relative_name(plan.outputs.front(), 0) + ".merge"); }

}  // namespace

std::string part_report_to_json(const PartReport& report, int64_t k, int64_t n) {
  const nlohmann::ordered_json root = {
      {"schema", "quern.part-report/1"}, {"part", k}, {"of", n}, {"data_bytes", report.data_bytes}, {"bytes_read", report.bytes_read}};
  return root.dump(1) + "\n";
}

PartReport run_part(const ModelSource& source, const Plan& plan, int64_t k, int64_t n, const fs::path& folder, Progress& progress,
                    const Calibration& calibration) {
  const auto start = std::chrono::steady_clock::now();
  check_calibration(plan, calibration);
  const uint64_t read_before = source.bytes_read();
  const Chunks chunks(plan);
  const Chunks::Range range = chunks.part(k - 1, n);
  const std::vector<PartSection> sections = part_sections(plan, chunks, range);
  char number[64];
  std::snprintf(number, sizeof number, ".part-%05lld-of-%05lld", static_cast<long long>(k), static_cast<long long>(n));
  const std::string stem = plan.outputs.front().stem + number;
  const auto overwrite = plan.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse;

  make_folder(folder);
  PartReport report;
  report.index = folder / (stem + ".json");
  report.data = folder / (stem + ".bin");
  // Begun first and named last: while its part file is there, data under their name are those of a run that was interrupted.
  const bool interrupted = fs::exists(part_path(report.index));
  OutputFile index(report.index, overwrite);
  PartSink sink(report.data, interrupted ? OutputFile::Overwrite::kAllow : overwrite, sections);
  progress.begin("converting", chunks.source_bytes(range));
  const PipelineResult result = run_chunks(source, plan, calibration, chunks, range, sink, progress);
  progress.end();

  std::vector<std::string> sections_sha256;
  for (size_t output = 0; output < plan.outputs.size(); ++output) sections_sha256.push_back(sink.sha256(output));
  const std::string text = part_index_to_json(plan, k, n, sections_sha256, result);
  index.write_at(0, std::as_bytes(std::span(text)));
  index.sync();
  index.keep_part(true);
  sink.commit();
  index.commit();
  report.data_bytes = sections.back().offset + sections.back().size;
  report.bytes_read = source.bytes_read() - read_before;
  report.seconds = seconds_since(start);
  return report;
}

bool merge_was_interrupted(const Plan& plan) { return fs::exists(part_path(merge_mark(plan))); }

ConvertReport merge_parts(const Plan& plan, const std::vector<fs::path>& indexes, Progress& progress) {
  const auto start = std::chrono::steady_clock::now();
  const std::string id = plan_id(plan);
  PartFigures of_parts;
  const std::vector<Part> parts = read_parts(plan, id, indexes, of_parts);
  check_data_files(parts);
  const std::vector<TensorFigures> figures = round_figures(plan, std::move(of_parts));

  make_folder(merge_mark(plan).parent_path());
  OutputFile mark(merge_mark(plan), OutputFile::Overwrite::kAllow);
  ConvertReport report;
  std::vector<std::unique_ptr<OutputWriter>> writers;
  std::vector<FinishedOutput> finished;
  std::vector<double> encode_seconds(plan.outputs.size());
  for (const PlannedOutput& output : plan.outputs) report.bytes_read += output.tensor_bytes;
  report.stored_bytes = report.bytes_read;
  progress.begin("merging", report.bytes_read);
  for (size_t output = 0; output < plan.outputs.size(); ++output) {
    writers.push_back(std::make_unique<OutputWriter>(plan, output));
    finished.push_back(assemble(plan, output, parts, *writers.back(), progress));
    for (const Part& part : parts) encode_seconds[output] += part.encode_seconds[output];
  }
  progress.end();
  mark.keep_part(true);
  publish_outputs(plan, writers, finished, figures);
  mark.keep_part(false);
  report.outputs = report_outputs(plan, finished, figures, encode_seconds);
  report.zero_tensors = find_zero_tensors(plan, figures);
  report.notes = plan.notes;
  report.warnings = plan.warnings;
  report.seconds = seconds_since(start);
  return report;
}

}  // namespace quern
