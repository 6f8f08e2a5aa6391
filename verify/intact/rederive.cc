#include "verify/intact/rederive.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <regex>
#include <set>

#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/base/parallel.h"
#include "quantize/tensor_encoder.h"

// A published tensor is proved by making it again: chunks of rows are fetched from the checkpoint, encoded with the effort, importance and
// statistics that the record names, and compared with the bytes of the file. Which chunks is decided by a hash of seed, tensor and chunk,
// at least one of every tensor, so that a sample can be repeated and nobody can tell beforehand what will not be looked at. What this
// version cannot make (another revision of an encoder, a matrix that is not here) is said to be unprovable rather than damaged.

namespace quern {
namespace {

constexpr int64_t kChunkWeights = int64_t{1} << 20;

// Evenly spread bits of the arguments (the finaliser of splitmix64; Steele, Lea, Flood 2014).
uint64_t mix_bits(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// A number in [0, 1) that depends on nothing but its arguments.
double draw(uint64_t seed, uint64_t tensor, uint64_t chunk) {
  const uint64_t bits = mix_bits(mix_bits(mix_bits(seed + 0x9e3779b97f4a7c15) + tensor) + chunk);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

struct Task {
  size_t tensor = 0;  // in the record
  size_t source = 0;  // in the model
  int64_t first_row = 0;
  int64_t n_rows = 0;
  bool copied = false;
};

// Why a tensor cannot be made again: kind and message of the finding; empty when it can.
using Obstacle = std::pair<std::string, std::string>;
constexpr const char* kMissingInput = "missing-input";

bool is_fed(const BuildRecord& build) { return build.settings.find_string(kFeedbackModeKey).has_value(); }

// What is wrong with these statistics for a build with error feedback; empty when they are those that it was made with.
std::string why_not_fed(const BuildRecord& build, const FeedbackEncoder* feedback) {
  const std::string mode = build.settings.find_string(kFeedbackModeKey).value_or("");
  const std::string text = build.settings.find_string(kFeedbackTextKey).value_or("");
  const int64_t n_tokens = build.settings.find_int(kFeedbackTokensKey).value_or(0);
  const std::string made_with = "needs the calibration text: --calib-text FILE, or --statistics FOLDER (error feedback, " + mode +
                                ", from " + std::to_string(n_tokens) + " tokens of the text of SHA-256 " + text + ")";
  if (feedback == nullptr) return made_with;
  const StatisticsRecord& record = feedback->record();
  const std::string folder = build.settings.find_string(kStatisticsKey).value_or("");
  const bool same_folder = folder.empty() || record.sha256.empty() || folder == record.sha256;
  if (same_folder && record.mode == mode && record.text_sha256 == text && record.n_tokens == n_tokens) return "";
  return made_with + "; what was given is another";
}

class Rederivation {
 public:
  Rederivation(const PublishedFolder& folder, const BuildRecord& build, const ModelSource& source, const Importance& importance,
               const RederiveOptions& options, std::vector<Finding>& findings)
      : build_(build),
        source_(source),
        importance_(importance),
        encoder_(source, &importance, effort_of(build), is_fed(build) ? options.feedback : nullptr),
        options_(options),
        findings_(findings) {
    if (options.tensors) pattern_.emplace(*options.tensors);
    for (const FileRecord& file : build.files) {
      files_.push_back(folder.has(file.name) ? std::make_unique<InputFile>(folder.locate(file.name)) : nullptr);
    }
  }

  RederiveCount run(Progress& progress) {
    plan();
    progress.begin("deriving again", count_.source_bytes);
    // With feedback tensor by tensor, so that no thread waits for statistics while others collect them.
    const std::span<const Task> all = tasks_;
    for (size_t first = 0, end = 0; first < all.size(); first = end) {
      end = is_fed(build_) ? first + 1 : all.size();
      while (end < all.size() && all[end].tensor == all[first].tensor) ++end;
      const std::shared_ptr<const void> statistics =
          options_.feedback != nullptr && !all[first].copied ? options_.feedback->prepare(all[first].source) : nullptr;
      run_tasks(all.subspan(first, end - first), progress);
    }
    progress.end();
    report();
    return count_;
  }

 private:
  // Chooses the chunks; what cannot be derived again is reported by reason.
  void plan() {
    std::map<std::string_view, size_t> by_name;
    for (size_t i = 0; i < source_.tensors().size(); ++i) by_name[source_.tensors()[i].name] = i;
    std::map<Obstacle, std::vector<std::string>> unprovable;
    for (size_t t = 0; t < build_.tensors.size(); ++t) {
      const TensorRecord& tensor = build_.tensors[t];
      if (pattern_ && !std::regex_search(tensor.name, *pattern_)) continue;
      const auto found = by_name.find(tensor.name);
      if (found == by_name.end() || !(source_.tensors()[found->second].shape == tensor.shape)) {
        findings_.push_back(damage("source", "other-source", "", "the checkpoint has no such tensor of shape " + tensor.shape.to_string()));
        findings_.back().tensor = tensor.name;
        continue;
      }
      if (files_[tensor.file] == nullptr) continue;  // reported as missing
      const bool copied = source_.can_copy(found->second, tensor.type);
      Obstacle obstacle = copied ? Obstacle() : why_not(tensor.type);
      if (!obstacle.second.empty()) {
        unprovable[std::move(obstacle)].push_back(tensor.name);
        continue;
      }
      add_tasks(t, found->second, copied);
    }
    for (const auto& [obstacle, names] : unprovable) {
      Finding finding = damage("source", obstacle.first, build_.files.front().name, obstacle.second);
      finding.verdict = Verdict::kUnprovable;
      finding.message +=
          " (" + std::to_string(names.size()) + (names.size() == 1 ? " tensor, '" : " tensors, the first is '") + names.front() + "')";
      findings_.push_back(std::move(finding));
    }
  }

  Obstacle why_not(DType type) const {
    const std::string name(name_of(type));
    if (traits(type).block_weights == 1) return {};
    if (!has_encoder(type)) return other_version("it has no encoder for " + name);
    const std::string imatrix = build_.settings.find_string(kImatrixKey).value_or("");
    if (importance_.record().sha256 != imatrix)
      return {kMissingInput, "needs the importance matrix that it was encoded with: --imatrix FILE (of SHA-256 " + imatrix + ")"};
    if (is_fed(build_)) {
      if (std::string reason = why_not_fed(build_, options_.feedback); !reason.empty()) return {kMissingInput, std::move(reason)};
    }
    const int64_t made_by = build_.settings.find_int("quern.encoder." + name).value_or(0);
    if (made_by == encoder_revision(type)) return {};
    return other_version(name + " was made by encoder revision " + std::to_string(made_by) + ", this is revision " +
                         std::to_string(encoder_revision(type)));
  }

  static Obstacle other_version(const std::string& reason) { return {"other-encoder", "cannot be re-derived by this version: " + reason}; }

  void add_tasks(size_t t, size_t source, bool copied) {
    const Shape& shape = build_.tensors[t].shape;
    const int64_t n_slices = std::max(importance_.n_slices(source), int64_t{1}), slice_rows = shape.n_rows() / n_slices;
    const int64_t group = std::clamp<int64_t>(source_.tensors()[source].row_alignment, 1, slice_rows);
    const int64_t wanted = std::max<int64_t>(kChunkWeights / shape.row_length() / group * group, group);
    std::vector<Task> chunks;
    for (int64_t slice = 0; slice < n_slices; ++slice) {
      for (int64_t row = 0; row < slice_rows; row += wanted) {
        chunks.push_back({t, source, slice * slice_rows + row, std::min(wanted, slice_rows - row), copied});
      }
    }
    const double share = pattern_ ? 1.0 : options_.sample;
    const auto always = static_cast<size_t>(draw(options_.seed, t, UINT64_MAX) * static_cast<double>(chunks.size()));
    for (size_t c = 0; c < chunks.size(); ++c) {
      if (c != always && draw(options_.seed, t, c) >= share) continue;
      tasks_.push_back(chunks[c]);
      ++count_.n_chunks;
      count_.source_bytes += bytes_of(chunks[c]);
    }
    ++count_.n_tensors;
    count_.n_chunks_in_all += static_cast<int64_t>(chunks.size());
  }

  void run_tasks(std::span<const Task> tasks, Progress& progress) {
    parallel_for(std::ssize(tasks), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        throw_if_interrupted();
        run_task(tasks[static_cast<size_t>(i)]);
        progress.advance(bytes_of(tasks[static_cast<size_t>(i)]));
      }
    });
  }

  uint64_t bytes_of(const Task& task) const { return source_.raw_bytes(task.source, task.n_rows); }

  void run_task(const Task& task) {
    const TensorRecord& tensor = build_.tensors[task.tensor];
    const int64_t row_length = tensor.shape.row_length();
    const uint64_t row_bytes = row_size_bytes(tensor.type, row_length);
    std::vector<std::byte> made(static_cast<size_t>(static_cast<uint64_t>(task.n_rows) * row_bytes));
    try {
      RawRows raw;
      source_.fetch(task.source, task.first_row, task.n_rows, raw);
      if (task.copied) {
        source_.copy(raw, tensor.type, made);
      } else {
        std::vector<float> weights(static_cast<size_t>(task.n_rows * row_length));
        source_.decode(raw, weights);
        encoder_.encode(task.source, tensor.type, task.first_row, task.n_rows, weights, made);
      }
      compare(task, made);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kFormat && error.kind() != ErrorKind::kIo) throw;
      note_difference(task.tensor, tensor.offset, error.message());
    }
  }

  // The blocks of a task with what the file has of their planes; the first byte that differs is noted.
  void compare(const Task& task, std::span<const std::byte> made) {
    const TensorRecord& tensor = build_.tensors[task.tensor];
    const std::vector<Plane> planes = build_.container->planes(tensor.type);
    const std::vector<PlaneRecord> recorded = planes_of(tensor);
    const uint64_t blocks_before =
        static_cast<uint64_t>(task.first_row) * static_cast<uint64_t>(tensor.shape.row_length() / traits(tensor.type).block_weights);
    std::vector<std::byte> buffer, published;
    std::optional<uint64_t> difference;
    for (size_t p = 0; p < planes.size(); ++p) {
      uint64_t offset = recorded[p].offset + blocks_before * planes[p].block_bytes;
      for_each_run(planes[p], tensor.type, made, buffer, [&](std::span<const std::byte> run) {
        if (difference) return;
        published.resize(run.size());
        files_[tensor.file]->read_at(offset, published);
        const auto [a, b] = std::ranges::mismatch(run, published);
        if (a != run.end()) difference = offset + static_cast<uint64_t>(a - run.begin());
        offset += run.size();
      });
    }
    if (difference) note_difference(task.tensor, *difference, "");
  }

  void note_difference(size_t tensor, uint64_t offset, const std::string& message) {
    const std::lock_guard lock(mutex_);
    Difference& difference = differences_.try_emplace(tensor, Difference{offset, 0, message}).first->second;
    difference.offset = std::min(difference.offset, offset);
    ++difference.n_chunks;
  }

  void report() {
    for (const auto& [t, difference] : differences_) {
      const TensorRecord& tensor = build_.tensors[t];
      std::string message = difference.message;
      if (message.empty()) {
        message = "is not what the checkpoint gives; the first byte that differs is named, " + std::to_string(difference.n_chunks) +
                  (difference.n_chunks == 1 ? " chunk differs" : " chunks differ");
      }
      findings_.push_back(damage("source", "not-derivable", build_.files[tensor.file].name, message));
      findings_.back().offset = difference.offset;
      findings_.back().tensor = tensor.name;
      findings_.back().slice = slice_at(tensor, difference.offset);
    }
  }

  // The slice that has the byte at an offset; -1 in tensors without slices.
  static int64_t slice_at(const TensorRecord& tensor, uint64_t offset) {
    for (const PlaneRecord& plane : planes_of(tensor)) {
      if (tensor.slices.empty() || offset < plane.offset || offset >= plane.offset + plane.size_bytes) continue;
      return static_cast<int64_t>((offset - plane.offset) / (plane.size_bytes / tensor.slices.size()));
    }
    return -1;
  }

  struct Difference {
    uint64_t offset = 0;  // the first
    int64_t n_chunks = 0;
    std::string message;  // when the bytes could not be compared
  };

  const BuildRecord& build_;
  const ModelSource& source_;
  const Importance& importance_;
  const TensorEncoder encoder_;
  const RederiveOptions& options_;
  std::vector<Finding>& findings_;
  std::optional<std::regex> pattern_;
  std::vector<std::unique_ptr<InputFile>> files_;
  std::vector<Task> tasks_;
  RederiveCount count_;
  std::mutex mutex_;
  std::map<size_t, Difference> differences_;
};

}  // namespace

Effort effort_of(const BuildRecord& build) {
  return find_effort(build.settings.find_string("quern.effort").value_or("default")).value_or(Effort::kDefault);
}

std::vector<DType> recorded_types(const BuildRecord& build, const ModelSource& source) {
  std::vector<DType> types;
  for (const LogicalTensor& tensor : source.tensors()) {
    const auto found = std::ranges::find(build.tensors, tensor.name, &TensorRecord::name);
    types.push_back(found == build.tensors.end() ? tensor.source_type : found->type);
  }
  return types;
}

RederiveCount rederive(const PublishedFolder& folder, const BuildRecord& build, const ModelSource& source, const Importance& importance,
                       const RederiveOptions& options, std::vector<Finding>& findings, Progress& progress) {
  return Rederivation(folder, build, source, importance, options, findings).run(progress);
}

}  // namespace quern
