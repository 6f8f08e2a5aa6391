#include "formats/statistics/statistics.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "formats/base/checked.h"
#include "formats/base/error.h"
#include "formats/base/json_tree.h"

// The list is begun before the first number and gets its name after the last, so a folder with a list is complete by construction. The part
// file of the list stays behind when a run is killed, which tells the next one that the numbers there are unfinished and may be replaced; a
// run that fails takes its finished files away itself.
//
// Every input has a file of its own in which slices follow each other, each as the triangle of its moment, its held rows and, in sequential
// mode, the shift and the original's rows. Slices are loaded one at a time, because a moment of 16,384 columns takes 512 MiB, and each has
// its SHA-256 in the list: these numbers decide the bytes of builds, so damage must not pass for data.

namespace quern {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kSchema = "quern.statistics/2";
constexpr const char* kListName = "statistics.json";
constexpr uint64_t kMaxListBytes = uint64_t{1} << 28;
constexpr int kMaxDepth = 8;
constexpr int64_t kMaxColumns = 1 << 20;
constexpr int64_t kMaxHeld = 1 << 24;

// "blk.3.ffn_up.bin" of "blk.3.ffn_up.weight"
std::string file_name(std::string_view weight) {
  constexpr std::string_view kEnding = ".weight";
  if (weight.ends_with(kEnding)) weight.remove_suffix(kEnding.size());
  return std::string(weight) + ".bin";
}

uint64_t half_count(int64_t n) { return static_cast<uint64_t>(n) * static_cast<uint64_t>(n + 1) / 2; }

// Floats of a slice in the order in which they are stored.
template <typename Loaded>
auto parts_of(Loaded& loaded) {
  return std::array{&loaded.moment.half, &loaded.held.rows, &loaded.shift, &loaded.held_original.rows};
}

uint64_t float_count(int64_t n_columns, const StatisticsInput::Place& place) {
  const auto n = static_cast<uint64_t>(n_columns), held = static_cast<uint64_t>(place.n_held) * n;
  return half_count(n_columns) + held + (place.sequential ? n * n + held : 0);
}

StatisticsInput::Place place_from_json(const json& slice, int64_t n_columns, bool sequential) {
  StatisticsInput::Place place;
  place.offset = integer_from<uint64_t>(slice.at("offset"));
  place.n_rows = integer_from<int64_t>(slice.at("n_rows"));
  place.n_held = integer_from<int64_t>(slice.at("n_held"));
  place.fourth = slice.at("fourth").get<double>();
  place.sequential = sequential;
  place.sha256 = slice.at("sha256").get<std::string>();
  if (place.n_rows < 0 || place.n_held < 0 || place.n_held > kMaxHeld) throw Error(ErrorKind::kFormat, "impossible count");
  // The products stay below 2^47: kMaxColumns and kMaxHeld.
  checked_add(place.offset, float_count(n_columns, place) * sizeof(float), "offset");
  return place;
}

StatisticsInput input_from_json(const json& entry, const fs::path& folder, bool sequential,
                                const std::function<uint64_t(const fs::path&)>& size_bytes) {
  StatisticsInput input;
  input.n_columns = integer_from<int64_t>(entry.at("n_columns"));
  if (input.n_columns < 1 || input.n_columns > kMaxColumns) throw Error(ErrorKind::kFormat, "impossible n_columns");
  const auto name = entry.at("file").get<std::string>();
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos) {
    throw Error(ErrorKind::kFormat, "impossible file name '" + printable(name) + "'");
  }
  input.file = folder / name;
  const uint64_t file_bytes = size_bytes(input.file);
  for (const json& slice : entry.at("slices")) {
    StatisticsInput::Place place = place_from_json(slice, input.n_columns, sequential);
    if (place.offset + float_count(input.n_columns, place) * sizeof(float) > file_bytes) {
      throw Error(ErrorKind::kFormat, "'" + printable(name) + "' ends before what the list says it holds");
    }
    input.slices.emplace(integer_from<int64_t>(slice.at("slice")), std::move(place));
  }
  return input;
}

}  // namespace

InputStatistics load_statistics(const StatisticsInput& input, int64_t slice) {
  const StatisticsInput::Place& place = input.slices.at(slice);
  const auto n = static_cast<size_t>(input.n_columns), held = static_cast<size_t>(place.n_held) * n;
  InputStatistics loaded;
  loaded.moment = {input.n_columns, place.n_rows, place.fourth, std::vector<float>(half_count(input.n_columns))};
  loaded.held = {input.n_columns, std::vector<float>(held)};
  if (place.sequential) {
    loaded.shift.resize(n * n);
    loaded.held_original = {input.n_columns, std::vector<float>(held)};
  }
  const InputFile file(input.file);
  Sha256 hash;
  uint64_t offset = place.offset;
  for (std::vector<float>* numbers : parts_of(loaded)) {
    const auto bytes = std::as_writable_bytes(std::span(*numbers));
    file.read_at(offset, bytes);
    hash.update(bytes);
    offset += bytes.size();
  }
  if (hash.finish_hex() != place.sha256) {
    throw Error(ErrorKind::kFormat, "the statistics are damaged: SHA-256 differs").file(input.file.string()).at(place.offset);
  }
  return loaded;
}

struct StatisticsWriter::Open {
  Open(const fs::path& path, OutputFile::Overwrite overwrite) : file(path, overwrite) {}
  std::vector<std::string> weights;
  OutputFile file;
  uint64_t size = 0;
  StatisticsInput input;
};

// The list is begun with the first number and named with the last, so that its part file tells that what lies beside it is unfinished.
struct StatisticsWriter::List {
  List(const fs::path& path, OutputFile::Overwrite overwrite) : file(path, overwrite) {}
  OutputFile file;
  ordered_json inputs = ordered_json::array();
  std::vector<fs::path> finished;  // removed when the list is never written
  bool written = false;
};

StatisticsWriter::StatisticsWriter(fs::path folder, OutputFile::Overwrite overwrite) : folder_(std::move(folder)), overwrite_(overwrite) {
  if (overwrite == OutputFile::Overwrite::kRefuse && fs::exists(folder_ / kListName)) {
    throw Error(ErrorKind::kUsage, "holds statistics already; --force replaces them").file(folder_.string());
  }
  make_folder(folder_);
  if (overwrite == OutputFile::Overwrite::kAllow) fs::remove(folder_ / kListName);  // of files that are replaced before it is
  if (fs::exists(part_path(folder_ / kListName))) overwrite_ = OutputFile::Overwrite::kAllow;
  list_ = std::make_unique<List>(folder_ / kListName, overwrite);
}

StatisticsWriter::~StatisticsWriter() {
  if (list_->written) return;
  std::error_code ignored;
  for (const fs::path& file : list_->finished) fs::remove(file, ignored);
}

void StatisticsWriter::add(std::span<const std::string> weights, int64_t slice, const InputStatistics& statistics) {
  const SecondMoment& moment = statistics.moment;
  StatisticsInput::Place place{0, moment.n_rows, statistics.held.n_rows(), moment.fourth, !statistics.shift.empty(), ""};
  auto found = std::ranges::find_if(open_, [&](const auto& open) { return open->weights.front() == weights.front(); });
  if (found == open_.end()) {
    open_.push_back(std::make_unique<Open>(folder_ / file_name(weights.front()), overwrite_));
    found = open_.end() - 1;
    (*found)->weights.assign(weights.begin(), weights.end());
    (*found)->input.n_columns = moment.n_columns;
  }
  Open& open = **found;
  place.offset = open.size;
  Sha256 hash;
  for (const std::vector<float>* numbers : parts_of(statistics)) {
    const auto bytes = std::as_bytes(std::span(*numbers));
    open.file.write_at(open.size, bytes);
    hash.update(bytes);
    open.size += bytes.size();
  }
  QUERN_CHECK(open.size - place.offset == float_count(moment.n_columns, place) * sizeof(float));
  place.sha256 = hash.finish_hex();
  open.input.slices.emplace(slice, std::move(place));
}

std::vector<StatisticsWriter::Finished> StatisticsWriter::finish_inputs() {
  std::vector<Finished> finished;
  for (const std::unique_ptr<Open>& open : open_) {
    list_->file.keep_part(true);  // from here on a file may have its name
    open->file.commit();
    list_->finished.push_back(open->file.path());
    ordered_json slices = ordered_json::array();
    for (const auto& [slice, place] : open->input.slices) {
      slices.push_back({{"slice", slice},
                        {"offset", place.offset},
                        {"n_rows", place.n_rows},
                        {"n_held", place.n_held},
                        {"fourth", place.fourth},
                        {"sha256", place.sha256}});
    }
    list_->inputs.push_back({{"weights", open->weights},
                             {"file", open->file.path().filename().string()},
                             {"n_columns", open->input.n_columns},
                             {"slices", std::move(slices)}});
    open->input.file = open->file.path();
    finished.push_back({std::move(open->weights), std::make_shared<StatisticsInput>(std::move(open->input))});
  }
  open_.clear();
  return finished;
}

void StatisticsWriter::finish(const StatisticsRecord& record) {
  finish_inputs();
  const ordered_json root = {
      {"schema", kSchema},   {"model", record.model}, {"text", record.text},         {"text_sha256", record.text_sha256},
      {"mode", record.mode}, {"ctx", record.ctx},     {"n_tokens", record.n_tokens}, {"inputs", std::move(list_->inputs)}};
  const std::string text = root.dump(1) + "\n";
  list_->file.write_at(0, std::as_bytes(std::span(text)));
  list_->file.commit();
  list_->written = true;
}

StatisticsList statistics_list_from_json(std::string_view text, const fs::path& folder,
                                         const std::function<uint64_t(const fs::path&)>& size_bytes) {
  StatisticsList list;
  try {
    const json root = parse_json_tree(text, kMaxDepth);
    if (root.at("schema") != kSchema) throw Error(ErrorKind::kFormat, "schema is not '" + std::string(kSchema) + "'");
    list.record.sha256 = sha256_hex(text);
    list.record.model = root.at("model").get<std::string>();
    list.record.text = root.at("text").get<std::string>();
    list.record.text_sha256 = root.at("text_sha256").get<std::string>();
    list.record.mode = root.at("mode").get<std::string>();
    list.record.ctx = integer_from<int64_t>(root.at("ctx"));
    list.record.n_tokens = integer_from<int64_t>(root.at("n_tokens"));
    const bool sequential = list.record.mode == kSequentialMode;
    for (const json& entry : root.at("inputs")) {
      const auto input = std::make_shared<const StatisticsInput>(input_from_json(entry, folder, sequential, size_bytes));
      for (const json& weight : entry.at("weights")) list.by_weight.emplace(weight.get<std::string>(), input);
    }
  } catch (const json::exception& error) {
    throw Error(ErrorKind::kFormat, std::string("not a list of statistics: ") + printable(error.what()));
  }
  return list;
}

Statistics::Statistics(const fs::path& folder) {
  const fs::path path = folder / kListName;
  const std::string text = read_text_file(path, kMaxListBytes);
  try {
    list_ = statistics_list_from_json(text, folder, [](const fs::path& file) { return InputFile(file).size_bytes(); });
  } catch (Error& error) {
    error.file(path.string());
    throw;
  }
}

std::shared_ptr<const StatisticsInput> Statistics::find(std::string_view weight) {
  const auto found = list_.by_weight.find(weight);
  return found == list_.by_weight.end() ? nullptr : found->second;
}

std::vector<std::string> Statistics::weights() const {
  std::vector<std::string> names;
  for (const auto& [name, input] : list_.by_weight) names.push_back(name);
  return names;
}

}  // namespace quern
