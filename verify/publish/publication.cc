#include "verify/publish/publication.h"

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "convert/fill/destination.h"
#include "convert/fill/journal.h"
#include "convert/plan/layout.h"
#include "convert/plan/planned_build.h"
#include "convert/record/build_record_json.h"
#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/base/sha256.h"
#include "formats/base/version.h"
#include "formats/gguf/gguf.h"
#include "formats/model/model_facts.h"
#include "recipes/machines.h"
#include "recipes/size_estimate.h"
#include "verify/drift/drift_job.h"
#include "verify/intact/file_scan.h"
#include "verify/intact/rederive.h"
#include "verify/publish/card_values.h"
#include "verify/publish/preparation.h"
#include "verify/publish/readme.h"
#include "verify/records/published.h"
#include "verify/report/report.h"

// A publication takes hours and may be killed at any moment. What it found out that stands in no published file is kept in a hidden file of
// the folder under an id of everything that decides the bytes; builds prove themselves by their records. So the next attempt repeats no
// step that is done, and ends with the same bytes as one that was never interrupted.

namespace quern {
namespace fs = std::filesystem;
namespace {

constexpr auto kReplace = OutputFile::Overwrite::kAllow;

// Two publications of one id give the same bytes.
std::string publication_id(const Plan& plan, const PublicationOptions& options) {
  std::string text = plan_id(plan) + "\n" + kVersion;
  text += "\n" + std::to_string(options.eval_ctx) + " " + std::to_string(options.eval_chunks);
  for (const fs::path& file : {options.eval_text, options.calib_text}) text += "\n" + (file.empty() ? "" : hash_file(file, no_progress()));
  return sha256_hex(text);
}

// llama-imatrix notes its texts as they were given, folders and all, and the file is published as it is.
void check_imatrix_texts(const fs::path& imatrix) {
  if (imatrix.extension() != ".gguf") return;
  const gguf::Header header = gguf::read_header(InputFile(imatrix));
  const auto* texts = header.metadata.find_string_array("imatrix.datasets");
  if (texts == nullptr) return;
  for (const std::string& text : *texts) {
    if (text.find('/') == std::string::npos && text.find('\\') == std::string::npos) continue;
    throw Error(ErrorKind::kUsage, "names its text by the path '" + printable(text) +
                                       "', which would be published; change it first, with quern edit "
                                       "--set 'imatrix.datasets=[\"name\"]' --force")
        .file(imatrix.string());
  }
}

// The largest build that fits on each machine.
std::vector<MachineAdvice> advise(const ModelSource& source, const Metadata& metadata, const Manifest& manifest) {
  std::vector<std::pair<const BuildRecord*, RunCost>> costs;
  for (const BuildRecord& build : manifest.builds) {
    costs.emplace_back(&build, run_cost(metadata, source.tensors(), recorded_types(build, source), advice_context(metadata)));
  }
  const auto tensor_bytes = [](const auto& cost) {
    uint64_t bytes = 0;
    for (const TensorRecord& tensor : cost.first->tensors) bytes += tensor.size_bytes;
    return bytes;
  };
  std::ranges::stable_sort(costs, std::greater(), tensor_bytes);
  std::vector<MachineAdvice> advice;
  for (const Machine& machine : all_machines()) {
    MachineAdvice line{machine.name, "", 0, 0};
    for (const auto& [build, cost] : costs) {
      const MachineFit fit = fit_on(machine, cost);
      if (fit.verdict == MachineFit::Verdict::kTooLarge) continue;
      line = {machine.name, build->label, static_cast<uint64_t>(std::max<int64_t>(fit.left_bytes, 0)), fit.tokens_per_second};
      break;
    }
    advice.push_back(std::move(line));
  }
  return advice;
}

}  // namespace

void check_card(const PublicationOptions& options) {
  const auto refuse = [](const char* option, const std::string& why) {
    if (!why.empty()) throw Error(ErrorKind::kUsage, std::string(option) + ": " + why);
  };
  if (!options.base_model.empty()) refuse("--base-model", why_not_hub_id(options.base_model));
  if (!options.revision.empty()) refuse("--revision", why_not_revision(options.revision));
  if (!options.license.empty()) refuse("--license", why_not_license(options.license));
}

OpenedBuild open_publication(BuildOptions options) {
  options.plan.force = true;
  options.plan.folder_per_type = true;
  OpenedBuild opened = open_build(options);
  if (!opened.plan) return opened;
  const std::vector<Problem> of_destination = check_destination(*opened.plan);
  std::erase_if(opened.problems, [&](const Problem& problem) {
    return std::ranges::any_of(of_destination, [&](const Problem& other) { return other.message == problem.message; });
  });
  return opened;
}

void check_publication_folder(const fs::path& folder, bool force) {
  if (force || !fs::is_directory(folder) || fs::exists(folder / kManifestName) || read_state(folder)) return;
  if (!list_published_files(folder).empty())
    throw Error(ErrorKind::kUsage, "is not empty; --force replaces what is published there").file(folder.string());
}

Publication::Publication(const PublicationOptions& options, OpenedBuild& opened)
    : options_(options), source_(*opened.source), opened_(opened), plan_(*opened.plan) {
  check_card(options_);
  check_imatrix_texts(options_.imatrix);
  if (!options_.key.empty()) key_.emplace(Ed25519Key::read_private(options_.key));
}

std::vector<Problem> Publication::begin(Progress& progress) {
  const std::string id = publication_id(plan_, options_);
  const bool exists = fs::is_directory(plan_.folder);
  const std::optional<PublishState> found = exists ? read_state(plan_.folder) : std::nullopt;
  const bool goes_on = found && found->id == id;
  const bool keeps = goes_on || !options_.force;
  if (keeps && fs::exists(plan_.folder / kManifestName)) published_ = read_manifest(plan_.folder / kManifestName);
  const std::vector<std::string> present = exists ? list_published_files(plan_.folder) : std::vector<std::string>();
  if (keeps && !goes_on) check_folder(found);
  check_foreign_files(present);
  if (options_.license.empty()) {
    for (const std::string& warning : card_warnings(plan_.metadata)) progress.warn(warning);
  }
  if (!options_.eval_text.empty()) {
    for (const std::string& warning : evaluation_text().warnings) progress.warn(warning);
  }
  make_folder(plan_.folder);
  if (!keeps) {  // what they say is true no longer
    for (const char* name : {kManifestName, kSumsName, kAttestationName}) fs::remove(plan_.folder / name);
  }
  state_ = goes_on ? *found : PublishState{id, {}, ""};
  write_state(plan_.folder, state_);
  if (published_) keep_published(progress);

  missing_ = plan_;
  const bool interrupted = begun_bytes(plan_) > 0;  // in a run that made all of them: it is gone on with as a whole
  for (const PlannedOutput& output : plan_.outputs) {
    complete_.push_back(keeps && !interrupted ? finished_build(plan_, output, progress) : std::nullopt);
    if (!complete_.back()) continue;
    progress.note(output.label + " is complete; it is not made again");
    std::erase_if(missing_.outputs, [&](const PlannedOutput& planned) { return planned.label == output.label; });
  }
  return missing_.outputs.empty() ? std::vector<Problem>() : check_destination(missing_);
}

void Publication::check_folder(const std::optional<PublishState>& found) const {
  if (found) {
    throw Error(ErrorKind::kUsage, "holds an unfinished publication of another source or with other options; --force replaces it")
        .file(plan_.folder.string());
  }
  check_publication_folder(plan_.folder, false);
}

// Builds of the folder that are not asked for again stay in its documents, if they are of this checkpoint.
void Publication::keep_published(Progress& progress) {
  hash_checkpoint(progress);
  const auto is_here = [&](const SourceRecord& of_old) {
    return std::ranges::any_of(state_.sources,
                               [&](const SourceRecord& source) { return source.name == of_old.name && source.sha256 == of_old.sha256; });
  };
  const auto other = std::ranges::find_if_not(published_->sources, is_here);
  if (other != published_->sources.end()) {
    throw Error(ErrorKind::kUsage, "holds builds of another checkpoint (" + printable(other->name) + " differs); --force replaces them")
        .file(plan_.folder.string());
  }
  for (const BuildRecord& build : published_->builds) {
    if (std::ranges::find(plan_.outputs, build.label, &PlannedOutput::label) != plan_.outputs.end()) continue;
    for (const FileRecord& file : build.files) {
      std::error_code missing;
      if (fs::file_size(plan_.folder / file.name, missing) == file.size_bytes && !missing) continue;
      throw Error(ErrorKind::kUsage, "'" + printable(file.name) + "' of the build " + printable(build.label) +
                                         " is missing or has another size; fetch it again, or begin anew with --force")
          .file(plan_.folder.string());
    }
    progress.note(build.label + " stays as it is");
    manifest_.builds.push_back(build);
  }
}

void Publication::check_foreign_files(const std::vector<std::string>& present) const {
  for (const std::string& name : present) {
    if (!name.ends_with(".gguf") || name == imatrix_name()) continue;
    bool ours = std::ranges::any_of(plan_.outputs, [&](const PlannedOutput& output) {
      for (size_t f = 0; f < output.files.size(); ++f) {
        if (relative_name(output, f) == name) return true;
      }
      return false;
    });
    if (published_) {
      ours = ours || std::ranges::find(published_->inputs, name, &InputRecord::name) != published_->inputs.end() ||
             std::ranges::any_of(published_->builds, [&](const BuildRecord& build) {
               return std::ranges::find(build.files, name, &FileRecord::name) != build.files.end();
             });
    }
    if (!ours)
      throw Error(ErrorKind::kUsage, "holds '" + printable(name) + "', which is not part of this publication; remove it")
          .file(plan_.folder.string());
  }
}

std::optional<ConvertReport> Publication::build(Progress& progress) {
  std::optional<ConvertReport> report;
  if (!missing_.outputs.empty()) report = run_build(opened_, missing_, progress);
  for (size_t i = 0; i < plan_.outputs.size(); ++i) {
    manifest_.builds.push_back(complete_[i] ? std::move(*complete_[i]) : finished_record(plan_.outputs[i]));
  }
  return report;
}

BuildRecord Publication::finished_record(const PlannedOutput& output) const {
  constexpr uint64_t kMaxRecordBytes = uint64_t{1} << 30;
  return build_record_from_json(read_text_file(plan_.folder / (output.stem + ".tensors.json"), kMaxRecordBytes));
}

void Publication::finish(Progress& progress) {
  hash_checkpoint(progress);
  publish_inputs();
  measure(progress);
  write_readme();
  write_report();
  write_documents(plan_.folder, manifest_, key_ ? &*key_ : nullptr);
  remove_preparation(plan_.folder);
  remove_state(plan_.folder);
}

void Publication::hash_checkpoint(Progress& progress) {
  manifest_.quern_version = kVersion;
  manifest_.base_model = options_.base_model;
  manifest_.revision = options_.revision;
  if (state_.sources.empty()) {
    state_.sources = hash_sources(source_, plan_.model, progress);
    write_state(plan_.folder, state_);
  }
  manifest_.sources = state_.sources;
}

// Statistics and recipes are published themselves, of texts only the sums.
void Publication::publish_inputs() {
  if (!options_.imatrix.empty()) publish_file("imatrix", options_.imatrix);
  for (const fs::path& recipe : options_.recipes) publish_file("recipe", recipe);
  const auto add_text = [this](const char* kind, const fs::path& file) {
    if (!file.empty()) add_input({kind, "", fs::file_size(file), hash_file(file, no_progress())});
  };
  add_text(kTemplateInput, options_.chat_template);
  add_text("calibration text", options_.calib_text);
  if (opened_.calibration.feedback) add_input({"calibration text", "", 0, opened_.calibration.feedback->record().text_sha256});
  add_text("evaluation text", options_.eval_text);
  if (!published_) return;
  for (const InputRecord& input : published_->inputs) {
    if (input.kind != "evaluation text" || options_.eval_text.empty()) add_input(input);
  }
}

void Publication::add_input(InputRecord input) {
  const bool known = std::ranges::any_of(manifest_.inputs, [&](const InputRecord& other) {
    return other.kind == input.kind && other.name == input.name && other.sha256 == input.sha256;
  });
  if (!known) manifest_.inputs.push_back(std::move(input));
}

void Publication::publish_file(const char* kind, const fs::path& file) {
  const std::string name = file.filename().string();
  const fs::path copy = plan_.folder / name;
  constexpr uint64_t kMaxInputBytes = uint64_t{1} << 32;
  const std::vector<std::byte> bytes = read_file(file, kMaxInputBytes);
  const InputRecord input{kind, name, bytes.size(), sha256_hex(bytes)};
  if (published_) {
    const auto old = std::ranges::find(published_->inputs, name, &InputRecord::name);
    if (old != published_->inputs.end() && old->sha256 != input.sha256) {
      throw Error(ErrorKind::kUsage, "another file of this name belongs to the builds that are published; rename it").file(file.string());
    }
  }
  std::error_code absent;
  if (!fs::equivalent(copy, file, absent)) {
    write_file_atomically(copy, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, kReplace);
  }
  add_input(input);
}

ChunkedText Publication::evaluation_text() const {
  return load_text(source_, {.file = options_.eval_text, .ctx = options_.eval_ctx, .max_chunks = options_.eval_chunks});
}

std::string Publication::drift_name() const {
  return fs::path(plan_.metadata.find_string("general.name").value_or("original")).filename().string();
}

// Rows of an earlier attempt, or of the builds that were published before, on the same chunks.
DriftReport Publication::known_drift(const ChunkedText& text) const {
  std::string json = state_.drift;
  if (json.empty() && published_) {
    const std::string sha256 = hash_file(options_.eval_text, no_progress());
    const bool same = std::ranges::any_of(
        published_->inputs, [&](const InputRecord& input) { return input.kind == "evaluation text" && input.sha256 == sha256; });
    if (same) json = published_->drift;
  }
  if (json.empty()) return {};
  DriftReport known = drift_from_json(json);
  const bool same_chunks = known.n_chunks == std::ssize(text.chunks) && known.n_ctx == std::ssize(text.chunks.front().tokens);
  return same_chunks && known.original == drift_name() ? known : DriftReport();
}

// One build after the other, so that an interrupt loses one.
void Publication::measure(Progress& progress) {
  if (options_.eval_text.empty()) {
    if (published_) manifest_.drift = published_->drift;
    return;
  }
  const ChunkedText text = evaluation_text();
  DriftReport known = known_drift(text);
  EvalOptions eval;
  eval.memory_bytes = options_.evaluation_memory_bytes != 0 ? options_.evaluation_memory_bytes : default_evaluation_memory();
  std::optional<DriftJob> job;
  for (size_t i = 0; i < manifest_.builds.size(); ++i) {
    const fs::path first = plan_.folder / manifest_.builds[i].files.front().name;
    const std::string name = drift_row_name(manifest_.builds[i]);
    if (std::ranges::find(known.rows, name, &DriftRow::name) != known.rows.end()) continue;
    if (!job) {
      progress.note("measuring the original on " + std::to_string(text.chunks.size()) + " chunks of " + std::to_string(options_.eval_ctx));
      job.emplace(source_, drift_name(), options_.eval_text.filename().string(), text, eval, progress);
      for (const std::string& warning : text.warnings) job->warn(warning);
    }
    progress.note("measuring " + manifest_.builds[i].label + " (" + std::to_string(i + 1) + " of " +
                  std::to_string(manifest_.builds.size()) + ")");
    const std::unique_ptr<ModelSource> opened = open_model(first);
    job->add(*opened, name, size_on_disk(*opened), progress);
    const DriftReport& measured = job->report();
    if (known.rows.empty()) {
      known = measured;
    } else {
      known.rows.push_back(measured.rows.back());
    }
    state_.drift = drift_to_json(known, DriftDetail::kSummary);
    write_state(plan_.folder, state_);
  }
  manifest_.drift = drift_to_json(in_order_of_builds(std::move(known)), DriftDetail::kSummary);
}

// The noise floor, then one row for each build: as if all had been measured at once.
DriftReport Publication::in_order_of_builds(DriftReport report) const {
  std::vector<std::string> names = {kNoiseFloorName};
  for (const BuildRecord& build : manifest_.builds) names.push_back(drift_row_name(build));
  std::vector<DriftRow> rows;
  for (const std::string& name : names) {
    const auto found = std::ranges::find(report.rows, name, &DriftRow::name);
    if (found != report.rows.end()) rows.push_back(std::move(*found));
  }
  report.rows = std::move(rows);
  return report;
}

void Publication::write_readme() const {
  ReadmeFacts facts;
  facts.manifest = &manifest_;
  facts.metadata = plan_.metadata;
  if (!manifest_.drift.empty()) facts.drift = drift_from_json(manifest_.drift);
  facts.quantized_by = options_.quantized_by;
  facts.key_id = key_ ? key_->id() : "";
  facts.machines = advise(source_, plan_.metadata, manifest_);
  write_file_atomically(plan_.folder / kReadmeName, make_readme(facts), kReplace);
}

// From the manifest on disk, as quern report would make it again.
void Publication::write_report() const {
  const fs::path manifest = plan_.folder / kManifestName;
  write_file_atomically(manifest, manifest_to_json(manifest_), kReplace);
  Report report = read_report(manifest, {});
  report.beside_files = true;
  report.key_id = key_ ? key_->id() : "";
  write_file_atomically(plan_.folder / kReportName, report_html(report), kReplace);
}

PublicationResult Publication::result() const {
  PublicationResult result;
  result.folder = plan_.folder.string();
  std::optional<DriftReport> drift;
  if (!manifest_.drift.empty()) drift = drift_from_json(manifest_.drift);
  if (drift) result.drift_text = drift->text;
  for (const BuildRecord& build : manifest_.builds) {
    PublishedBuild published{build.label, {}, 0, std::nullopt};
    for (const FileRecord& file : build.files) {
      published.files.push_back(file.name);
      published.size_bytes += file.size_bytes;
    }
    if (drift) {
      const auto row = std::ranges::find(drift->rows, drift_row_name(build), &DriftRow::name);
      if (row != drift->rows.end()) published.drift = row->drift.statistics;
    }
    result.builds.push_back(std::move(published));
  }
  if (key_) result.key_id = key_->id();
  result.files = list_published_files(plan_.folder);
  return result;
}

std::string publication_to_json(const PublicationResult& result) {
  using nlohmann::ordered_json;
  ordered_json builds = ordered_json::array();
  for (const PublishedBuild& build : result.builds) {
    ordered_json entry = {{"label", build.label}, {"files", build.files}, {"size_bytes", build.size_bytes}};
    if (build.drift) {
      entry["kl"] = {{"value", build.drift->kl.value}, {"error", build.drift->kl.error}};
      entry["perplexity"] = {{"value", build.drift->ppl.value}, {"error", build.drift->ppl.error}};
    }
    builds.push_back(std::move(entry));
  }
  ordered_json root = {{"schema", "quern.publish/1"}, {"folder", result.folder}, {"builds", builds}, {"files", result.files}};
  if (!result.drift_text.empty()) root["eval_text"] = result.drift_text;
  if (!result.key_id.empty()) root["key_id"] = result.key_id;
  return root.dump(1) + "\n";
}

}  // namespace quern
