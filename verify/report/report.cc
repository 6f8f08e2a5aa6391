#include "verify/report/report.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "formats/arch/stems.h"
#include "formats/base/resources.h"
#include "formats/statistics/importance.h"

// Everything that a report says is decided here, from measurements or from a manifest; the other files draw it. Measurements and records
// know each other by the names of files. Builds are named by what tells their files apart, so the part that all names begin with goes. A
// choice is worth showing unless another build is no larger and no further from the original, and a verdict counts the most that the
// divergence may be, so that what a stored reference hides is never to a build's credit.

namespace quern {
namespace {

std::string file_name(const std::string& path) { return std::filesystem::path(path).filename().string(); }

std::string without_suffix(std::string name) {
  if (name.ends_with(".gguf")) name.resize(name.size() - 5);
  const size_t shard = name.find("-00001-of-");
  return shard == std::string::npos ? name : name.substr(0, shard);
}

// Length of what all names begin with, up to and with a dash.
size_t common_prefix(const std::vector<std::string>& names) {
  if (names.size() < 2) return 0;
  size_t n = names.front().size();
  for (const std::string& name : names) {
    const auto ends = std::mismatch(name.begin(), name.end(), names.front().begin(), names.front().end());
    n = std::min(n, static_cast<size_t>(ends.first - name.begin()));
  }
  const size_t dash = names.front().rfind('-', n == 0 ? 0 : n - 1);
  return n == 0 || dash == std::string::npos ? 0 : dash + 1;
}

ReportBuild build_from(const BuildRecord& record) {
  ReportBuild build{.name = record.label, .lossless = record.lossless, .recipe = record.recipe, .made_by = record.quern_version};
  if (record.error) build.relative_error = record.error->exact ? 0.0 : record.error->relative_error;
  build.files = record.files;
  build.feedback = feedback_of(record.settings);
  for (const FileRecord& file : record.files) build.size_bytes += file.size_bytes;
  double bits = 0.0, weights = 0.0;
  for (const TensorRecord& tensor : record.tensors) {
    bits += 8.0 * static_cast<double>(tensor.size_bytes);
    weights += static_cast<double>(tensor.shape.n_elements());
    if (!tensor.error) continue;
    build.tensors.push_back({tensor.name, std::string(name_of(tensor.type)), tensor.shape.n_elements(), tensor.error->exact,
                             tensor.error->exact ? 0.0 : tensor.error->relative_error});
  }
  build.bits_per_weight = weights > 0.0 ? bits / weights : 0.0;
  return build;
}

bool is_of(const DriftRow& row, const BuildRecord& record) {
  return std::ranges::any_of(record.files, [&](const FileRecord& file) { return file_name(file.name) == file_name(row.name); });
}

// What the folder's files say of the model: the hub's name of it, or that of the files without the build's.
std::string title_of(const Manifest& manifest) {
  if (!manifest.base_model.empty()) return file_name(manifest.base_model);
  if (manifest.builds.empty() || manifest.builds.front().files.empty()) return "";
  const BuildRecord& build = manifest.builds.front();
  std::string name = without_suffix(file_name(build.files.front().name));
  if (name.ends_with("-" + build.label)) name.resize(name.size() - build.label.size() - 1);
  return name;
}

double upper_kl(const DriftRow& row) { return row.drift.statistics.kl.value + row.drift.statistics.kl_slack; }

void sort_by_size(std::vector<ReportBuild>& builds) {
  std::ranges::stable_sort(builds, {}, [](const ReportBuild& build) { return build.size_bytes; });
}

}  // namespace

Report report_from_drift(const DriftReport& drift, const std::vector<BuildRecord>& records) {
  Report report{.model = file_name(drift.original), .text = drift.text, .n_ctx = drift.n_ctx, .n_chunks = drift.n_chunks};
  std::vector<std::string> names;
  for (const DriftRow& row : drift.rows) {
    if (row.name != kNoiseFloorName) names.push_back(without_suffix(file_name(row.name)));
  }
  const size_t prefix = common_prefix(names);
  size_t k = 0;
  for (const DriftRow& row : drift.rows) {
    if (row.name == kNoiseFloorName) {
      report.noise_floor = row;
      continue;
    }
    const auto record = std::ranges::find_if(records, [&](const BuildRecord& r) { return is_of(row, r); });
    ReportBuild build = record == records.end() ? ReportBuild{} : build_from(*record);
    if (record == records.end()) build.name = names[k].substr(prefix);
    ++k;
    build.size_bytes = row.size_bytes;
    build.bits_per_weight = row.bits_per_weight;
    build.measured = row;
    report.builds.push_back(std::move(build));
  }
  sort_by_size(report.builds);
  return report;
}

Report report_from_manifest(const Manifest& manifest) {
  Report report;
  if (!manifest.drift.empty()) report = report_from_drift(drift_from_json(manifest.drift), {});
  const std::vector<ReportBuild> measured = std::move(report.builds);
  report.builds.clear();
  for (const BuildRecord& record : manifest.builds) {
    ReportBuild build = build_from(record);
    if (record.mtp) build.name += " (MTP)";
    const auto row = std::ranges::find_if(measured, [&](const ReportBuild& m) { return is_of(*m.measured, record); });
    if (row != measured.end()) build.measured = row->measured;
    report.builds.push_back(std::move(build));
  }
  sort_by_size(report.builds);
  report.base_model = manifest.base_model;
  report.revision = manifest.revision;
  report.made_by = manifest.quern_version;
  report.has_manifest = true;
  if (report.model.empty() || !manifest.base_model.empty()) report.model = title_of(manifest);
  for (const SourceRecord& source : manifest.sources) report.inputs.push_back({kCheckpointKind, source.name, source.sha256});
  for (const InputRecord& input : manifest.inputs) report.inputs.push_back({input.kind, input.name, input.sha256});
  return report;
}

std::vector<ExpertCoverage> expert_coverage(const Imatrix& imatrix) {
  std::map<int64_t, ExpertCoverage> layers;
  if (imatrix.counts_are_chunks()) return {};
  for (const ImatrixEntry& entry : imatrix.entries) {
    const auto [layer, name] = split_block_name(entry.name);
    // Gate, up and down of a layer are reached by the same tokens.
    if (layer < 0 || !name.ends_with("_exps.weight") || entry.counts.empty() || layers.contains(layer)) continue;
    std::vector<int64_t> counts = entry.counts;
    std::ranges::sort(counts);
    const size_t n = counts.size();
    layers[layer] = {.layer = layer,
                     .n_experts = static_cast<int64_t>(n),
                     .n_unseen = std::ranges::count(counts, 0),
                     .n_few = std::ranges::count_if(counts, [](int64_t c) { return c < kFewRows; }),
                     .min_tokens = counts.front(),
                     .median_tokens = 0.5 * static_cast<double>(counts[(n - 1) / 2] + counts[n / 2])};
  }
  std::vector<ExpertCoverage> out;
  for (const auto& [layer, coverage] : layers) out.push_back(coverage);
  return out;
}

std::string verdict(const ReportBuild& build, const std::optional<DriftRow>& noise_floor) {
  if (!build.measured) return build.lossless ? "every weight exactly as published" : "not measured";
  const double kl = upper_kl(*build.measured);
  if (!std::isfinite(kl)) return "broken: its predictions are not numbers";
  if (kl <= 0.0) return "exactly the original";
  const double floor = noise_floor ? upper_kl(*noise_floor) : 0.0;
  if (kl <= floor) return "as good as the original";
  if (kl <= 2.0 * floor || kl < 0.002) return "hard to tell from the original";
  if (kl < 0.02) return "the original but for a word now and then";
  if (kl < 0.1) return "good, but long reasoning and code begin to suffer";
  if (kl < 0.5) return "usable when memory leaves no choice";
  return "another, weaker model";
}

const ReportBuild* better_choice(const Report& report, const ReportBuild& build) {
  if (!build.measured) return nullptr;
  const double kl = upper_kl(*build.measured);
  for (const ReportBuild& other : report.builds) {
    if (&other == &build || !other.measured || other.size_bytes == 0) continue;
    const double other_kl = upper_kl(*other.measured);
    const bool no_worse = other.size_bytes <= build.size_bytes && (other_kl <= kl || std::isnan(kl));
    if (no_worse && (other.size_bytes < build.size_bytes || other_kl < kl || std::isnan(kl))) return &other;
  }
  return nullptr;
}

std::string summary_sentence(const Report& report) {
  std::vector<const ReportBuild*> choices;
  for (const ReportBuild& build : report.builds) {
    if (build.measured && better_choice(report, build) == nullptr) choices.push_back(&build);
  }
  if (report.builds.empty()) return "Nothing was built.";
  if (choices.empty()) return "How much the files differ from the original was not measured.";
  const auto described = [&](const char* which, const ReportBuild& build) {
    return which + build.name + " (" + format_size(build.size_bytes) + "), is " + verdict(build, report.noise_floor) + ".";
  };
  const ReportBuild &smallest = *choices.front(), &largest = *choices.back();
  if (report.builds.size() == 1) return described("The file, ", largest);
  if (choices.size() == 1) return described("One file is both the smallest and the best: ", largest);
  return "Take the largest file that fits into your memory. " + described("The largest worth having, ", largest) + " " +
         described("The smallest, ", smallest);
}

}  // namespace quern
