#include "convert/fill/journal.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <nlohmann/json.hpp>

#include "convert/fill/figures_json.h"
#include "convert/plan/layout.h"
#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/base/json_tree.h"
#include "formats/base/platform.h"
#include "formats/base/sha256.h"

// A journal is a file of lines of JSON, of which the last one that is whole counts. Its first line is a fingerprint of the run: whoever
// finds the same line would write the same bytes. Every further line says how far all outputs are, in the same place of the same tensor, so
// that one row decides where the work is taken up. Lines are appended after the data they speak of is on disk, but not synced themselves: a
// line that a crash loses costs the work since the line before and nothing else. Figures are recorded with their sums as they are before
// rounding, so that a run in several attempts ends with the bits of one.

namespace quern {
namespace {

using nlohmann::json;

constexpr const char* kSchema = "quern.journal/2";
constexpr uint64_t kMaxJournalBytes = uint64_t{1} << 30;
constexpr int kMaxDepth = 8;

Error io_error(const std::filesystem::path& path, const char* what) {
  return std::move(Error(ErrorKind::kIo, std::string(what) + ": " + std::strerror(errno)).file(path.string()));
}

// Over everything but the sources that decides the bytes of the outputs. Not the division into chunks, which no byte depends on.
std::string options_id(const Plan& plan) {
  Sha256 hash;
  const auto add = [&hash](std::string_view text) {
    hash.update(std::as_bytes(std::span(text)));
    hash.update(std::as_bytes(std::span("\n", 1)));
  };
  add(name_of(plan.effort));
  add(plan.imatrix ? plan.imatrix->sha256 : "");
  if (plan.statistics) {
    const StatisticsRecord& record = *plan.statistics;
    add(record.sha256 + " " + record.text_sha256 + " " + record.mode + " " + std::to_string(record.ctx));
    add(std::to_string(record.n_tokens));
  }
  for (const PlannedTensor& tensor : plan.tensors) add(tensor.name + " " + std::to_string(tensor.source_index));
  for (const PlannedOutput& output : plan.outputs) {
    add(output.mix + (output.lossless ? " lossless" : ""));
    add_files(plan, output, hash);
  }
  return hash.finish_hex();
}

json header_of(const Plan& plan) {
  json header = {{"schema", kSchema}, {"quern_version", plan.quern_version}, {"sources", json::array()}, {"options", options_id(plan)}};
  for (const PlannedSource& source : plan.sources) {
    header["sources"].push_back({source.name, source.size_bytes, source.mtime_ns, source.fingerprint});
  }
  return header;
}

// Of one line; empty for what is no JSON, as the end of a line that was cut.
std::optional<json> parse_line(std::string_view line) {
  try {
    return parse_json_tree(line, kMaxDepth);
  } catch (const Error&) {
    return std::nullopt;
  }
}

// In words; empty when there is none.
std::string difference_of(const json& begun, const json& now) {
  if (begun.at("schema") != kSchema || begun.at("quern_version") != now.at("quern_version")) return "the version of quern differs";
  const json &then = begun.at("sources"), &sources = now.at("sources");
  if (then.size() != sources.size()) {
    return std::to_string(then.size()) + " source files then, " + std::to_string(sources.size()) + " now";
  }
  for (size_t i = 0; i < sources.size(); ++i) {
    if (then[i] != sources[i]) return "the source file '" + printable(sources[i].at(0).get<std::string>()) + "' differs";
  }
  return begun.at("options") == now.at("options") ? "" : "types, recipe or options differ";
}

json to_json(const PlaneMark& mark) { return {{"offset", mark.file_offset}, {"size_bytes", mark.size_bytes}, {"sha256", mark.sha256}}; }

FileMark mark_from_json(const json& file) {
  FileMark mark{integer_from<uint64_t>(file.at("size_bytes")), file.at("sha256").get<std::string>()};
  for (const json& plane : file.value("planes", json::array())) {
    mark.planes.push_back({integer_from<uint64_t>(plane.at("offset")), integer_from<uint64_t>(plane.at("size_bytes")),
                           plane.at("sha256").get<std::string>()});
  }
  return mark;
}

bool lies_in(const FileMark& mark, const PlannedFile& file) {
  return mark.size_bytes <= file.size_bytes && std::ranges::all_of(mark.planes, [&](const PlaneMark& plane) {
           return plane.file_offset <= file.size_bytes && plane.size_bytes <= file.size_bytes - plane.file_offset;
         });
}

// Adds what a record says to `run`.
void add_record(const Plan& plan, const json& record, BegunRun& run) {
  for (const json& file : record.at("files")) {
    const size_t output = integer_from<size_t>(file.at("output")), number = integer_from<size_t>(file.at("file"));
    const FileMark mark = mark_from_json(file);
    if (output >= plan.outputs.size() || number >= plan.outputs[output].files.size() ||
        !lies_in(mark, plan.outputs[output].files[number])) {
      throw Error(ErrorKind::kFormat, "a record does not fit the plan");
    }
    run.outputs[output][number] = mark;
  }
  run.figures.partial.clear();  // the sums of a record are whole sums
  add_figures(plan, record.at("figures"), run.figures.figures, run.figures.partial);
}

// The last record that ends where a chunk of the plan begins.
std::optional<BegunRun> last_record(const Plan& plan, const std::vector<json>& records, const std::vector<uint64_t>& ends) {
  const Chunks chunks(plan);
  size_t n = records.size();
  std::optional<int64_t> n_chunks;
  while (n > 0 && !n_chunks) {
    n_chunks = chunks.beginning_at(integer_from<size_t>(records[n - 1].at("tensor")), integer_from<int64_t>(records[n - 1].at("row")));
    if (!n_chunks) --n;
  }
  if (!n_chunks) return std::nullopt;
  BegunRun run;
  run.n_chunks = *n_chunks;
  run.outputs.resize(plan.outputs.size());
  run.figures.figures.resize(plan.tensors.size());
  run.journal_bytes = ends[n - 1];
  for (size_t i = 0; i < n; ++i) add_record(plan, records[i], run);
  return run;
}

}  // namespace

std::filesystem::path journal_path(const Plan& plan) {
  std::filesystem::path path = part_path(plan.folder / relative_name(plan.outputs.front(), 0));
  path += ".journal";
  return path;
}

std::string journal_header(const Plan& plan) { return header_of(plan).dump(); }

Error difference_error(const Plan& plan, const std::string& difference) {
  return std::move(Error(ErrorKind::kUsage, "was begun by another run: " + difference + "; --force begins again")
                       .file(part_path(plan.folder / relative_name(plan.outputs.front(), 0)).string()));
}

JournalReading read_journal(const Plan& plan, std::string_view text) {
  std::vector<json> lines;
  std::vector<uint64_t> ends;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string_view::npos; begin = end + 1) {
    std::optional<json> line = parse_line(text.substr(begin, end - begin));
    if (!line) break;
    lines.push_back(std::move(*line));
    ends.push_back(end + 1);
  }
  if (lines.size() < 2) return {};  // nothing is lost
  JournalReading reading;
  try {
    reading.difference = difference_of(lines.front(), header_of(plan));
    if (!reading.difference.empty()) return reading;
    lines.erase(lines.begin());
    ends.erase(ends.begin());
    reading.begun = last_record(plan, lines, ends);
  } catch (const json::exception& error) {
    reading.difference = std::string("its journal is damaged: ") + printable(error.what());
  } catch (const Error& error) {
    reading.difference = std::string("its journal is damaged: ") + error.what();
  }
  return reading;
}

JournalReading read_journal(const Plan& plan) {
  if (plan.outputs.empty() || !std::filesystem::exists(journal_path(plan))) return {};
  return read_journal(plan, read_text_file(journal_path(plan), kMaxJournalBytes));
}

uint64_t begun_bytes(const Plan& plan) {
  uint64_t bytes = 0;
  for (const Plan& run : runs_of(plan)) {
    const std::optional<BegunRun> begun = read_journal(run).begun;
    if (!begun) continue;
    for (const OutputMarks& marks : begun->outputs) {
      for (const auto& [file, mark] : marks) bytes += mark.size_bytes;
    }
  }
  return bytes;
}

Journal::Journal(const Plan& plan) : plan_(plan), path_(journal_path(plan)), fd_(open_locked(path_)) {}

Journal::~Journal() {
  if (!keep_) unlink(path_.c_str());
  close(fd_);  // after the unlink: the lock that it releases protects the name
}

void Journal::begin_anew() {
  if (ftruncate(fd_, 0) != 0 || lseek(fd_, 0, SEEK_SET) != 0) throw io_error(path_, "cannot begin the journal");
  append(journal_header(plan_));
}

void Journal::go_on(const BegunRun& begun) {
  const off_t size = static_cast<off_t>(begun.journal_bytes);
  if (ftruncate(fd_, size) != 0 || lseek(fd_, size, SEEK_SET) != size) throw io_error(path_, "cannot continue the journal");
  n_records_ = 1;
  const Chunks chunks(plan_);
  if (begun.n_chunks < chunks.count()) next_tensor_ = chunks[begun.n_chunks].tensor;
}

void Journal::record(const Chunks& chunks, int64_t n_chunks, const std::vector<OutputMarks>& files, const PipelineResult& so_far) {
  const size_t n_tensors = plan_.tensors.size();
  const Chunk next = n_chunks < chunks.count() ? chunks[n_chunks] : Chunk{n_tensors, 0, 0};
  json record = {{"tensor", next.tensor}, {"row", next.first_row}, {"files", json::array()}};
  for (size_t output = 0; output < files.size(); ++output) {
    for (const auto& [number, mark] : files[output]) {
      json file = {{"output", output}, {"file", number}, {"size_bytes", mark.size_bytes}, {"sha256", mark.sha256}};
      for (const PlaneMark& plane : mark.planes) file["planes"].push_back(to_json(plane));
      record["files"].push_back(std::move(file));
    }
  }
  record["figures"] = figures_to_json(so_far, next_tensor_, std::min(next.tensor + 1, n_tensors));
  append(record.dump());
  next_tensor_ = next.tensor;
  ++n_records_;
}

void Journal::sync() {
  if (sync_data(fd_) != 0) throw io_error(path_, "cannot sync the journal");
}

void Journal::append(const std::string& line) {
  const std::string text = line + "\n";
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = write(fd_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw io_error(path_, "cannot write the journal");
    done += static_cast<size_t>(n);
  }
}

}  // namespace quern
