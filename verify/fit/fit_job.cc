#include "verify/fit/fit_job.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "convert/plan/plan_checks.h"
#include "convert/plan/planned_build.h"
#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/base/resources.h"
#include "formats/base/sha256.h"
#include "quantize/plain/encode.h"
#include "quantize/reconstruction.h"
#include "quantize/simulated_source.h"
#include "verify/drift/chunked_text.h"

// Measuring comes first and is by far the longest, so its results are kept in a file under a key of everything that they depend on. Then
// every size is proposed, and all proposals are judged beside the plain builds in one go, so that the original runs over the check text
// once.

namespace quern {
namespace fs = std::filesystem;
namespace {

using nlohmann::ordered_json;

constexpr size_t kRivals = 3;  // plain builds that are judged beside a proposal

std::string number(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string duration_text(double seconds) {
  return seconds < 120 ? number("%.0f s", seconds) : seconds < 7200 ? number("%.0f min", seconds / 60) : number("%.1f h", seconds / 3600);
}

// n of the chunks, spread evenly.
std::vector<Sequence> spread(std::span<const Sequence> chunks, int64_t n) {
  std::vector<Sequence> chosen;
  const int64_t n_chunks = std::ssize(chunks);
  n = std::min(n, n_chunks);
  for (int64_t i = 0; i < n; ++i) chosen.push_back(chunks[static_cast<size_t>((2 * i + 1) * n_chunks / (2 * n))]);
  return chosen;
}

std::optional<Sensitivities> read_cache(const fs::path& path, const ModelSource& source, const std::string& key, Progress& progress) {
  constexpr uint64_t kMaxCacheBytes = uint64_t{1} << 28;
  std::error_code ignored;
  if (path.empty() || !fs::exists(path, ignored)) return std::nullopt;
  try {
    return sensitivities_from_json(read_text_file(path, kMaxCacheBytes), source, key);
  } catch (const Error& error) {
    progress.warn(path.string() + ": " + error.message() + "; measuring again");
    return std::nullopt;
  }
}

void write_cache(const fs::path& path, const Sensitivities& sensitivities, const ModelSource& source, const std::string& key,
                 Progress& progress) {
  if (path.empty()) return;
  try {
    make_folder(path.parent_path());
    write_file_atomically(path, sensitivities_to_json(sensitivities, source, key), OutputFile::Overwrite::kAllow);
  } catch (const std::exception& error) {
    progress.warn("the sensitivities cannot be kept: " + std::string(error.what()));
  }
}

// Weights that measure_errors() encodes.
double sampled_weights(const ModelSource& source, const Sensitivities& sensitivities) {
  double sum = 1;
  for (size_t i = 0; i < sensitivities.candidates.size(); ++i) {
    const Shape& shape = source.tensors()[i].shape;
    const int64_t n_rows = std::min(shape.n_rows(), std::max(kErrorSampleRows, kErrorSampleWeights / shape.row_length()));
    sum += static_cast<double>(sensitivities.candidates[i].size() - 1) * static_cast<double>(n_rows * shape.row_length());
  }
  return sum;
}

// Integer tables have no encoder and need none.
bool has_encoder_or_keeps(DType type) { return has_encoder(type) || type == DType::I32; }

ordered_json to_json(const FitBuild& build) {
  ordered_json json = {{"name", build.name}, {"size_bytes", build.size_bytes}, {"expected_kl", build.expected}};
  if (build.measured.value > 0) json["measured_kl"] = {{"value", build.measured.value}, {"error", build.measured.error}};
  json["check_kl"] = {{"value", build.checked.value}, {"error", build.checked.error}};
  return json;
}

}  // namespace

std::string recipe_name(std::string_view size) {
  std::string name = "fit-" + std::string(size);
  std::erase(name, ' ');
  return name;
}

struct FitJob::Measured {
  Sensitivities sensitivities;
  std::unique_ptr<SimulatedBuilds> builds;
};

FitJob::FitJob(const ModelSource& source, const Calibration& calibration, FitJobOptions options)
    : source_(source),
      calibration_(calibration),
      options_(std::move(options)),
      encoder_(source, &calibration.importance, Effort::kDefault, calibration.feedback.get()) {
  check_sizes();
  const std::vector<Sequence> calib = load_text(source, {.file = options_.calib_text, .ctx = options_.ctx}).chunks;
  std::span<const Sequence> measuring = calib, checking;
  std::vector<Sequence> check;
  if (options_.check_text.empty()) {
    const size_t n = std::max<size_t>(calib.size() / 5, 1);
    measuring = measuring.first(calib.size() - n);
    checking = std::span(calib).last(n);
  } else {
    check = load_text(source, {.file = options_.check_text, .ctx = options_.ctx}).chunks;
    checking = check;
  }
  if (measuring.empty()) throw Error(ErrorKind::kUsage, "the calibration text is too short to be divided");
  measuring_ = spread(measuring, options_.chunks);
  checking_ = spread(checking, options_.check_chunks);
}

uint64_t FitJob::file_size(const FitSize& size, const TypeAssignment& types) const {
  return plan_builds(source_, options_.model, {recipe_of(size, types, {})}, {}, calibration_).front().size_bytes;
}

// The smallest file follows from the types alone.
void FitJob::check_sizes() const {
  TypeAssignment smallest;
  for (size_t i = 0; i < source_.tensors().size(); ++i) smallest.push_back(candidate_types(source_, i).front());
  for (const FitSize& size : options_.sizes) {
    const uint64_t least = file_size(size, smallest) + kFitReserveBytes;
    if (least <= size.limit_bytes) continue;
    throw Error(ErrorKind::kUsage, "--size " + printable(size.name) + ": no choice of types fits " + std::to_string(size.limit_bytes) +
                                       " bytes; the smallest that works is " + std::to_string(least) + " (" + format_size(least) + ")");
  }
}

// What sensitivities depend on.
std::string FitJob::measurement_key() const {
  Sha256 hash;
  const auto add = [&](const std::string& text) {
    hash.update(std::as_bytes(std::span(text)));
    hash.update(std::as_bytes(std::span("\n", 1)));
  };
  for (const SourceFile& file : source_.files()) add(fingerprint(file.path));
  for (const Sequence& sequence : measuring_) hash.update(std::as_bytes(std::span(sequence.tokens)));
  add(std::to_string(options_.ctx) + " " + std::to_string(options_.probes));
  add(calibration_.importance.record().sha256);
  if (calibration_.feedback) {
    const StatisticsRecord& record = calibration_.feedback->record();
    add(record.sha256 + " " + record.text_sha256 + " " + record.mode + " " + std::to_string(record.n_tokens));
  }
  for (size_t i = 0; i < source_.tensors().size(); ++i) {
    for (const DType type : candidate_types(source_, i)) add(std::string(name_of(type)) + " " + std::to_string(encoder_revision(type)));
  }
  return hash.finish_hex();
}

FitJob::Measured FitJob::measure(BlockCache& blocks, const EvalOptions& eval, Progress& progress) const {
  Measured result;
  const std::string key = measurement_key();
  const fs::path path = options_.cache.empty() ? fs::path() : options_.cache / ("sensitivities-" + key.substr(0, 16) + ".json");
  result.builds = std::make_unique<SimulatedBuilds>(source_, encoder_, blocks, eval, measuring_, options_.ctx / 8, progress);
  if (std::optional<Sensitivities> cached = read_cache(path, source_, key, progress)) {
    progress.note("sensitivities from " + printable(path.string()));
    result.sensitivities = std::move(*cached);
    return result;
  }
  const auto begin = std::chrono::steady_clock::now();
  result.sensitivities = measure_errors(source_, encoder_, progress);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  const std::vector<TypeAssignment> builds = probe_builds(source_, result.sensitivities, options_.probes);
  const double seconds = forecast_seconds(builds, *result.builds, took.count() / sampled_weights(source_, result.sensitivities));
  progress.note(std::to_string(builds.size()) + " probes" + (std::ssize(builds) > options_.probes ? ", the fewest for this model," : "") +
                " and what follows from them: about " + duration_text(seconds));
  set_probe_results(result.sensitivities, result.builds->measure(builds, progress));
  write_cache(path, result.sensitivities, source_, key, progress);
  return result;
}

// Weights of these builds that are encoded, blocks that several share once.
double FitJob::encoded_weights(std::span<const TypeAssignment> builds) const {
  double sum = 0;
  for (size_t i = 0; i < source_.tensors().size(); ++i) {
    std::set<DType> types;
    for (const TypeAssignment& build : builds) {
      if (!source_.can_copy(i, build[i])) types.insert(build[i]);
    }
    sum += static_cast<double>(types.size()) * static_cast<double>(source_.tensors()[i].shape.n_elements());
  }
  return sum;
}

// Of the probes, of a step for every tensor in each round, and of judging: layers run and weights encoded.
double FitJob::forecast_seconds(std::span<const TypeAssignment> probes, const SimulatedBuilds& builds, double seconds_per_weight) const {
  const auto n_layers = static_cast<double>(builds.n_layers() + 1), n_sizes = static_cast<double>(options_.sizes.size());
  const double n_steps = n_sizes * options_.rounds;
  double step_layers = 0, weights = 0;
  for (const LogicalTensor& tensor : source_.tensors()) {
    step_layers += n_layers - static_cast<double>(std::max<int64_t>(tensor.layer, 0));
    weights += static_cast<double>(tensor.shape.n_elements());
  }
  const double judged = n_sizes * (1 + kRivals), share = static_cast<double>(n_checking()) / static_cast<double>(n_measuring());
  const double layers = static_cast<double>(builds.cost(probes)) + n_steps * step_layers + judged * n_layers * share;
  return layers * builds.seconds_per_layer() + (encoded_weights(probes) + (n_steps + judged) * weights) * seconds_per_weight;
}

// Figures have one width, so that the recipe in the file has the same length before and after they are known.
std::string FitJob::notes_text(Estimate checked) const {
  const fs::path& check_text = options_.check_text.empty() ? options_.calib_text : options_.check_text;
  return "quern fit, calibrated on " + printable(options_.calib_text.filename().string()) + "; KL " + number("%9.6f", checked.value) +
         " +-" + number("%9.6f", checked.error) + " on " + printable(check_text.filename().string()) +
         (options_.check_text.empty() ? " (last fifth)" : "");
}

Recipe FitJob::recipe_of(const FitSize& size, const TypeAssignment& types, Estimate checked) const {
  Recipe recipe = recipe_of_types(recipe_name(size.name), source_.metadata(), source_.tensors(), types);
  recipe.notes = notes_text(checked);
  return recipe;
}

std::vector<FitBuild> FitJob::plain_builds() const {
  std::vector<std::string> mixes;
  for (const Mix& mix : all_mixes()) {
    if (!is_lossless(mix)) mixes.emplace_back(mix.name);
  }
  std::vector<FitBuild> builds;
  const std::span<const Recipe> shipped = shipped_recipes();
  for (PlannedBuild& build : plan_builds(source_, options_.model, {shipped.begin(), shipped.end()}, mixes, calibration_)) {
    if (!std::ranges::all_of(build.types, has_encoder_or_keeps)) continue;
    builds.push_back({std::move(build.name), std::move(build.types), build.size_bytes, 0.0, {}, {}});
  }
  return builds;
}

std::vector<FittedSize> FitJob::run(Progress& progress) {
  std::vector<uint64_t> limits;
  for (const FitSize& size : options_.sizes) limits.push_back(size.limit_bytes - kFitReserveBytes);
  std::vector<FitBuild> plain = plain_builds();

  EvalOptions eval = options_.eval;
  BlockCache blocks(eval.memory_bytes / 4);
  eval.memory_bytes -= eval.memory_bytes / 4;
  Measured measured = measure(blocks, eval, progress);
  std::vector<FitBuild> proposals;
  for (size_t s = 0; s < limits.size(); ++s) {
    const FileSize file_size = [&](const TypeAssignment& types) { return this->file_size(options_.sizes[s], types); };
    proposals.push_back(propose_builds(source_, measured.sensitivities, *measured.builds, std::span(&limits[s], 1), file_size,
                                       {.rounds = options_.rounds}, progress)
                            .front());
    proposals.back().name = recipe_name(options_.sizes[s].name);
  }
  measured.builds.reset();
  SimulatedBuilds checking(source_, encoder_, blocks, eval, checking_, options_.ctx / 2, progress);
  std::vector<FitResult> results =
      check_builds(measured.sensitivities, std::move(proposals), std::move(plain), limits, checking, kRivals, progress);

  std::vector<FittedSize> fitted;
  for (size_t s = 0; s < results.size(); ++s) {
    const FitSize& size = options_.sizes[s];
    FitResult& result = results[s];
    result.limit_bytes = size.limit_bytes;
    const Recipe recipe =
        result.winner ? load_recipe(result.rivals[*result.winner].name) : recipe_of(size, result.proposal.types, result.proposal.checked);
    write_file_atomically(size.recipe, recipe_to_json(recipe), options_.overwrite);
    fitted.push_back({size, std::move(result)});
  }
  return fitted;
}

std::string fit_to_json(std::span<const FittedSize> sizes) {
  ordered_json list = ordered_json::array();
  for (const auto& [size, result] : sizes) {
    ordered_json rivals = ordered_json::array();
    for (const FitBuild& build : result.rivals) rivals.push_back(to_json(build));
    list.push_back({{"limit_bytes", result.limit_bytes},
                    {"recipe", size.recipe.string()},
                    {"is_plain", result.winner.has_value()},
                    {"fit", to_json(result.proposal)},
                    {"plain", rivals}});
  }
  return ordered_json{{"schema", "quern.fit/1"}, {"sizes", list}}.dump(1) + "\n";
}

}  // namespace quern
