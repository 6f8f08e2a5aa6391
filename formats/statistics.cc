#include "formats/statistics.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "formats/base/checked.h"
#include "formats/base/error.h"
#include "formats/json_tree.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kSchema = "quern.statistics/1";
constexpr const char* kListName = "statistics.json";
constexpr uint64_t kMaxListBytes = uint64_t{1} << 28;
constexpr int64_t kMaxColumns = 1 << 20;

// "blk.3" of "blk.3.ffn_up.weight", "model" outside blocks.
std::string block_of(std::string_view weight) {
  if (!weight.starts_with("blk.")) return "model";
  return std::string(weight.substr(0, weight.find('.', 4)));
}

uint64_t half_count(int64_t n) { return static_cast<uint64_t>(n) * static_cast<uint64_t>(n + 1) / 2; }

}  // namespace

struct StatisticsWriter::Block {
  Block(const fs::path& path, OutputFile::Overwrite overwrite) : file(path, overwrite) {}
  OutputFile file;
  uint64_t size = 0;
};

struct StatisticsWriter::List {
  ordered_json inputs = ordered_json::array();
  std::map<std::string, size_t> by_first_weight;
  std::vector<std::string> files;
};

StatisticsWriter::StatisticsWriter(fs::path folder, OutputFile::Overwrite overwrite)
    : folder_(std::move(folder)), overwrite_(overwrite), list_(std::make_unique<List>()) {
  if (overwrite == OutputFile::Overwrite::kRefuse && fs::exists(folder_ / kListName)) {
    throw Error(ErrorKind::kUsage, "holds statistics already; --force replaces them").file(folder_.string());
  }
  std::error_code failed;
  fs::create_directories(folder_, failed);
  if (failed) throw Error(ErrorKind::kIo, failed.message()).file(folder_.string());
}

StatisticsWriter::~StatisticsWriter() = default;

void StatisticsWriter::add(std::span<const std::string> weights, int64_t slice, const SecondMoment& moment, const HeldRows& held) {
  QUERN_CHECK(moment.half.size() == half_count(moment.n_columns));
  const std::string name = block_of(weights.front()) + ".bin";
  if (list_->files.empty() || list_->files.back() != name) {
    if (block_) block_->file.commit();
    block_ = std::make_unique<Block>(folder_ / name, overwrite_);
    list_->files.push_back(name);
  }
  const auto [found, is_new] = list_->by_first_weight.try_emplace(weights.front(), list_->inputs.size());
  if (is_new) {
    list_->inputs.push_back({{"weights", weights}, {"file", name}, {"n_columns", moment.n_columns}, {"slices", ordered_json::array()}});
  }
  Sha256 hash;
  const uint64_t offset = block_->size;
  for (const std::vector<float>* numbers : {&moment.half, &held.rows}) {
    const auto bytes = std::as_bytes(std::span(*numbers));
    block_->file.write_at(block_->size, bytes);
    hash.update(bytes);
    block_->size += bytes.size();
  }
  list_->inputs[found->second]["slices"].push_back({{"slice", slice},
                                                    {"offset", offset},
                                                    {"n_rows", moment.n_rows},
                                                    {"n_held", held.n_rows()},
                                                    {"fourth", moment.fourth},
                                                    {"sha256", hash.finish_hex()}});
}

void StatisticsWriter::finish(const StatisticsRecord& record) {
  if (block_) block_->file.commit();
  block_.reset();
  const ordered_json root = {
      {"schema", kSchema},   {"model", record.model}, {"text", record.text},         {"text_sha256", record.text_sha256},
      {"mode", record.mode}, {"ctx", record.ctx},     {"n_tokens", record.n_tokens}, {"inputs", std::move(list_->inputs)}};
  write_file_atomically(folder_ / kListName, root.dump(1) + "\n", overwrite_);
}

Statistics::Statistics(const fs::path& folder) {
  const fs::path path = folder / kListName;
  const std::string text = read_text_file(path, kMaxListBytes);
  record_.sha256 = sha256_hex(text);
  try {
    const json root = parse_json_tree(text, 8);
    if (root.at("schema") != kSchema) throw Error(ErrorKind::kFormat, "schema is not '" + std::string(kSchema) + "'");
    record_.model = root.at("model").get<std::string>();
    record_.text = root.at("text").get<std::string>();
    record_.text_sha256 = root.at("text_sha256").get<std::string>();
    record_.mode = root.at("mode").get<std::string>();
    record_.ctx = root.at("ctx").get<int64_t>();
    record_.n_tokens = root.at("n_tokens").get<int64_t>();
    std::map<std::string, size_t> files;
    for (const json& entry : root.at("inputs")) {
      Input input;
      input.n_columns = entry.at("n_columns").get<int64_t>();
      if (input.n_columns < 1 || input.n_columns > kMaxColumns) throw Error(ErrorKind::kFormat, "impossible n_columns");
      const auto name = entry.at("file").get<std::string>();
      if (name.empty() || name.find('/') != std::string::npos) throw Error(ErrorKind::kFormat, "impossible file name '" + name + "'");
      const auto [file, is_new] = files.try_emplace(name, files_.size());
      if (is_new) files_.emplace_back(folder / name);
      for (const json& slice : entry.at("slices")) {
        Place place;
        place.file = file->second;
        place.offset = slice.at("offset").get<uint64_t>();
        place.n_rows = slice.at("n_rows").get<int64_t>();
        place.n_held = slice.at("n_held").get<int64_t>();
        place.fourth = slice.at("fourth").get<double>();
        place.sha256 = slice.at("sha256").get<std::string>();
        if (place.n_rows < 0 || place.n_held < 0 || place.n_held > (int64_t{1} << 24)) throw Error(ErrorKind::kFormat, "impossible count");
        const uint64_t floats = half_count(input.n_columns) + static_cast<uint64_t>(place.n_held) * static_cast<uint64_t>(input.n_columns);
        if (checked_add(place.offset, floats * sizeof(float), "offset") > files_[place.file].size_bytes()) {
          throw Error(ErrorKind::kFormat, "'" + name + "' ends before what the list says it holds");
        }
        input.slices.emplace(slice.at("slice").get<int64_t>(), std::move(place));
      }
      for (const json& weight : entry.at("weights")) by_weight_.emplace(weight.get<std::string>(), inputs_.size());
      inputs_.push_back(std::move(input));
    }
  } catch (const json::exception& error) {
    throw Error(ErrorKind::kFormat, error.what()).file(path.string());
  } catch (Error& error) {
    error.file(path.string());
    throw;
  }
}

const Statistics::Input* Statistics::find(std::string_view weight) const noexcept {
  const auto found = by_weight_.find(weight);
  return found == by_weight_.end() ? nullptr : &inputs_[found->second];
}

Statistics::Loaded Statistics::load(const Input& input, const Place& place) const {
  Loaded loaded;
  loaded.moment = {input.n_columns, place.n_rows, place.fourth, std::vector<float>(half_count(input.n_columns))};
  loaded.held = {input.n_columns, std::vector<float>(static_cast<size_t>(place.n_held * input.n_columns))};
  Sha256 hash;
  uint64_t offset = place.offset;
  for (std::vector<float>* numbers : {&loaded.moment.half, &loaded.held.rows}) {
    const auto bytes = std::as_writable_bytes(std::span(*numbers));
    files_[place.file].read_at(offset, bytes);
    hash.update(bytes);
    offset += bytes.size();
  }
  if (hash.finish_hex() != place.sha256) {
    throw Error(ErrorKind::kFormat, "the statistics are damaged: SHA-256 differs")
        .file(files_[place.file].path().string())
        .at(place.offset);
  }
  return loaded;
}

}  // namespace quern
