#include "convert/part.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "convert/figures_json.h"
#include "convert/output_writer.h"
#include "formats/base/sha256.h"

namespace quern {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;

constexpr const char* kSchema = "quern.part/1";
constexpr uint64_t kMaxIndexBytes = 1u << 30;
constexpr size_t kCopyBytes = 4u << 20;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Bytes of each output's tensor data that a range of chunks covers: [begin, begin + size), kept one after the other in the part.
struct Section {
  uint64_t begin = 0;
  uint64_t size = 0;
  uint64_t offset = 0;  // in the part's data file
};

std::vector<Section> sections_of(const Plan& plan, const Chunks& chunks, Chunks::Range range) {
  std::vector<Section> sections;
  uint64_t offset = 0;
  for (size_t output = 0; output < plan.outputs.size(); ++output) {
    Section section;
    section.begin = chunks.data_position(output, range.first);
    section.size = chunks.data_position(output, range.last) - section.begin;
    section.offset = offset;
    offset += section.size;
    sections.push_back(section);
  }
  return sections;
}

class PartSink final : public ChunkSink {
 public:
  PartSink(fs::path path, OutputFile::Overwrite overwrite, const std::vector<Section>& sections)
      : file_(std::move(path), overwrite), hashes_(sections.size()) {
    for (const Section& section : sections) positions_.push_back(section.offset);
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

// What the index of a part says.
struct Part {
  fs::path index;
  fs::path data;
  int64_t k = 0, n = 0;
  Chunks::Range range;
  std::vector<Section> sections;
  std::vector<std::string> sha256;
  json figures;
  std::vector<double> encode_seconds;
};

Part parse_part(const Plan& plan, const std::string& id, const fs::path& path) {
  const json root = json::parse(read_text_file(path, kMaxIndexBytes));
  if (root.at("schema") != kSchema) throw Error(ErrorKind::kFormat, "is not the index of a part (schema '" + std::string(kSchema) + "')");
  if (root.at("plan") != id) throw Error(ErrorKind::kFormat, "belongs to another plan");
  Part part;
  part.index = path;
  part.data = fs::path(path).replace_extension(".bin");
  part.k = root.at("part").get<int64_t>();
  part.n = root.at("of").get<int64_t>();
  const Chunks chunks(plan);
  if (part.n < 1 || part.k < 1 || part.k > part.n) throw Error(ErrorKind::kFormat, "impossible part number");
  part.range = chunks.part(part.k - 1, part.n);
  part.sections = sections_of(plan, chunks, part.range);
  part.sha256 = root.at("sections_sha256").get<std::vector<std::string>>();
  part.encode_seconds = root.at("encode_seconds").get<std::vector<double>>();
  part.figures = root.at("figures");
  if (part.sha256.size() != plan.outputs.size() || part.encode_seconds.size() != plan.outputs.size()) {
    throw Error(ErrorKind::kFormat, "has another number of outputs");
  }
  return part;
}

Part read_part(const Plan& plan, const std::string& id, const fs::path& path) {
  try {
    return parse_part(plan, id, path);
  } catch (const json::exception& error) {
    throw Error(ErrorKind::kFormat, std::string("not the index of a part: ") + printable(error.what())).file(path.string());
  } catch (Error& error) {
    error.file(path.string());
    throw;
  }
}

std::vector<Part> read_parts(const Plan& plan, const std::string& id, const std::vector<fs::path>& indexes) {
  std::vector<Part> parts;
  for (const fs::path& path : indexes) parts.push_back(read_part(plan, id, path));
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

std::vector<TensorFigures> collect_figures(const Plan& plan, const std::vector<Part>& parts) {
  std::vector<TensorFigures> figures(plan.tensors.size());
  std::map<Unit, PartialFigures> partial;
  for (const Part& part : parts) {
    try {
      add_figures(plan, part.figures, figures, partial);
    } catch (const json::exception& error) {
      throw Error(ErrorKind::kFormat, std::string("unreadable figures: ") + printable(error.what())).file(part.index.string());
    }
  }
  for (const auto& [unit, sum] : partial) set_figures(plan.tensors[unit.tensor], unit, sum.rounded(), figures[unit.tensor]);
  for (size_t t = 0; t < figures.size(); ++t) {
    figures[t].outputs.resize(plan.outputs.size());
    if (plan.tensors[t].n_slices > 1) figures[t].slices.resize(static_cast<size_t>(plan.tensors[t].n_slices));
    for (Figures& slice : figures[t].slices) slice.outputs.resize(plan.outputs.size());
  }
  return figures;
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

// One output from the sections of all parts, in order.
FinishedOutput assemble(const Plan& plan, size_t output, const std::vector<Part>& parts, OutputWriter& writer, Progress& progress) {
  TensorHasher hasher(plan, output);
  std::vector<std::byte> buffer(kCopyBytes);
  for (const Part& part : parts) {
    const InputFile data(part.data);
    const Section& section = part.sections[output];
    Sha256 hash;
    for (uint64_t done = 0; done < section.size;) {
      throw_if_interrupted();
      const auto piece = std::span(buffer).first(static_cast<size_t>(std::min<uint64_t>(section.size - done, buffer.size())));
      data.read_at(section.offset + done, piece);
      hash.update(piece);
      writer.append(piece);
      hasher.append(piece);
      progress.advance(piece.size());
      done += piece.size();
    }
    if (hash.finish_hex() != part.sha256[output]) {
      throw Error(ErrorKind::kFormat, "data of output " + plan.outputs[output].mix + " is damaged").file(part.data.string());
    }
  }
  return {writer.finish(), hasher.finish()};
}

}  // namespace

PartReport run_part(const ModelSource& source, const Plan& plan, int64_t k, int64_t n, const fs::path& folder, Progress& progress,
                    const Calibration& calibration) {
  const auto start = std::chrono::steady_clock::now();
  check_calibration(plan, calibration);
  const uint64_t read_before = source.bytes_read();
  const Chunks chunks(plan);
  const Chunks::Range range = chunks.part(k - 1, n);
  const std::vector<Section> sections = sections_of(plan, chunks, range);
  char number[64];
  std::snprintf(number, sizeof number, ".part-%05lld-of-%05lld", static_cast<long long>(k), static_cast<long long>(n));
  const std::string stem = plan.outputs.front().stem + number;
  const auto overwrite = plan.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse;

  fs::create_directories(folder);
  PartReport report;
  report.index = folder / (stem + ".json");
  report.data = folder / (stem + ".bin");
  PartSink sink(report.data, overwrite, sections);
  progress.begin("converting", chunks.source_bytes(range));
  const PipelineResult result = run_chunks(source, plan, calibration, chunks, range, sink, progress);
  progress.end();

  json index = {{"schema", kSchema}, {"plan", plan_id(plan)}, {"part", k}, {"of", n}, {"encode_seconds", result.encode_seconds}};
  index["sections_sha256"] = json::array();
  for (size_t output = 0; output < plan.outputs.size(); ++output) index["sections_sha256"].push_back(sink.sha256(output));
  index["figures"] = figures_to_json(result, 0, plan.tensors.size());
  sink.commit();
  write_file_atomically(report.index, index.dump() + "\n", overwrite);
  report.data_bytes = sections.back().offset + sections.back().size;
  report.bytes_read = source.bytes_read() - read_before;
  report.seconds = seconds_since(start);
  return report;
}

ConvertReport merge_parts(const Plan& plan, const std::vector<fs::path>& indexes, Progress& progress) {
  const auto start = std::chrono::steady_clock::now();
  const std::string id = plan_id(plan);
  const std::vector<Part> parts = read_parts(plan, id, indexes);
  check_data_files(parts);
  const std::vector<TensorFigures> figures = collect_figures(plan, parts);

  fs::create_directories(plan.folder);
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
  publish_outputs(plan, writers, finished, figures);
  report.outputs = report_outputs(plan, finished, figures, encode_seconds);
  report.seconds = seconds_since(start);
  return report;
}

}  // namespace quern
