#include "verify/publish/publication.h"

#include <algorithm>
#include <functional>

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
#include "verify/publish/card_values.h"
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

// The largest output that fits on each machine.
std::vector<MachineAdvice> advise(const ModelSource& source, const Plan& plan) {
  std::vector<LogicalTensor> tensors;
  for (const PlannedTensor& tensor : plan.tensors) tensors.push_back(source.tensors()[tensor.source_index]);
  std::vector<std::pair<const PlannedOutput*, RunCost>> costs;
  for (const PlannedOutput& output : plan.outputs) {
    costs.emplace_back(&output, run_cost(plan.metadata, tensors, types_of(output), kAdviceContext));
  }
  std::ranges::stable_sort(costs, std::greater(), [](const auto& cost) { return cost.first->tensor_bytes; });
  std::vector<MachineAdvice> advice;
  for (const Machine& machine : all_machines()) {
    MachineAdvice line{machine.name, "", 0, 0};
    for (const auto& [output, cost] : costs) {
      const MachineFit fit = fit_on(machine, cost);
      if (fit.verdict == MachineFit::Verdict::kTooLarge) continue;
      line = {machine.name, output->label, static_cast<uint64_t>(std::max<int64_t>(fit.left_bytes, 0)), fit.tokens_per_second};
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

Publication::Publication(const PublicationOptions& options, OpenedBuild& opened)
    : options_(options), source_(*opened.source), opened_(opened), plan_(*opened.plan) {
  check_card(options_);
  check_imatrix_texts(options_.imatrix);
  if (!options_.key.empty()) key_.emplace(Ed25519Key::read_private(options_.key));
}

std::vector<Problem> Publication::begin(Progress& progress) {
  const std::string id = publication_id(plan_, options_);
  const std::optional<PublishState> found = fs::is_directory(plan_.folder) ? read_state(plan_.folder) : std::nullopt;
  const std::vector<std::string> present = fs::is_directory(plan_.folder) ? list_published_files(plan_.folder) : std::vector<std::string>();
  const bool goes_on = found && found->id == id;
  if (!goes_on && !options_.force && (found || !present.empty())) {
    throw Error(ErrorKind::kUsage, found ? "holds an unfinished publication of another source or with other options; --force replaces it"
                                         : "is not empty; --force replaces what is published there")
        .file(plan_.folder.string());
  }
  check_foreign_files(present);
  if (options_.license.empty()) {
    for (const std::string& warning : card_warnings(plan_.metadata)) progress.warn(warning);
  }
  if (!options_.eval_text.empty()) {
    for (const std::string& warning : load_text(source_, {.file = options_.eval_text}).warnings) progress.warn(warning);
  }
  make_folder(plan_.folder);
  state_ = goes_on ? *found : PublishState{id, {}, ""};
  write_state(plan_.folder, state_);

  missing_ = plan_;
  const bool interrupted = begun_bytes(plan_) > 0;  // in a run that made all of them: it is gone on with as a whole
  for (const PlannedOutput& output : plan_.outputs) {
    complete_.push_back(goes_on && !interrupted ? finished_build(plan_, output, progress) : std::nullopt);
    if (!complete_.back()) continue;
    progress.note(output.label + " is complete; it is not made again");
    std::erase_if(missing_.outputs, [&](const PlannedOutput& planned) { return planned.label == output.label; });
  }
  return missing_.outputs.empty() ? std::vector<Problem>() : check_destination(missing_);
}

void Publication::check_foreign_files(const std::vector<std::string>& present) const {
  for (const std::string& name : present) {
    if (!name.ends_with(".gguf") || name == imatrix_name()) continue;
    const bool ours = std::ranges::any_of(plan_.outputs, [&](const PlannedOutput& output) {
      for (size_t f = 0; f < output.files.size(); ++f) {
        if (relative_name(output, f) == name) return true;
      }
      return false;
    });
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
  remove_state(plan_.folder);
}

void Publication::hash_checkpoint(Progress& progress) {
  manifest_.quern_version = kVersion;
  manifest_.base_model = options_.base_model;
  manifest_.revision = options_.revision;
  if (state_.sources.empty()) {
    state_.sources = hash_sources(source_, progress);
    write_state(plan_.folder, state_);
  }
  manifest_.sources = state_.sources;
}

// Statistics are published themselves, of texts only the sums.
void Publication::publish_inputs() {
  if (const fs::path& imatrix = options_.imatrix; !imatrix.empty()) {
    const fs::path copy = plan_.folder / imatrix_name();
    constexpr uint64_t kMaxImatrixBytes = uint64_t{1} << 32;
    if (!fs::exists(copy) || !fs::equivalent(copy, imatrix)) {
      const std::vector<std::byte> bytes = read_file(imatrix, kMaxImatrixBytes);
      write_file_atomically(copy, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, kReplace);
    }
    manifest_.inputs.push_back({"imatrix", imatrix_name(), fs::file_size(copy), hash_file(copy, no_progress())});
  }
  const auto add_text = [this](const char* kind, const fs::path& file) {
    if (!file.empty()) manifest_.inputs.push_back({kind, "", fs::file_size(file), hash_file(file, no_progress())});
  };
  add_text("calibration text", options_.calib_text);
  add_text("evaluation text", options_.eval_text);
}

void Publication::measure(Progress& progress) {
  if (options_.eval_text.empty()) return;
  if (state_.drift.empty()) {
    state_.drift = drift_to_json(measured(progress), DriftDetail::kSummary);
    write_state(plan_.folder, state_);
  }
  manifest_.drift = state_.drift;
}

DriftReport Publication::measured(Progress& progress) const {
  EvalOptions eval;
  eval.memory_bytes = options_.evaluation_memory_bytes != 0 ? options_.evaluation_memory_bytes : default_evaluation_memory();
  const ChunkedText text = load_text(source_, {.file = options_.eval_text});
  const std::string name = fs::path(plan_.metadata.find_string("general.name").value_or("original")).filename().string();
  DriftJob job(source_, name, options_.eval_text.filename().string(), text, eval, progress);
  for (const std::string& warning : text.warnings) job.warn(warning);
  for (const BuildRecord& build : manifest_.builds) {
    const fs::path first = plan_.folder / build.files.front().name;
    const std::unique_ptr<ModelSource> opened = open_model(first);
    progress.note("measuring " + build.label);
    job.add(*opened, first.filename().string(), size_on_disk(*opened), progress);
  }
  return job.report();
}

void Publication::write_readme() const {
  ReadmeFacts facts;
  facts.manifest = &manifest_;
  facts.metadata = plan_.metadata;
  if (!manifest_.drift.empty()) facts.drift = drift_from_json(manifest_.drift);
  facts.quantized_by = options_.quantized_by;
  facts.is_signed = key_.has_value();
  facts.machines = advise(source_, plan_);
  write_file_atomically(plan_.folder / kReadmeName, make_readme(facts), kReplace);
}

// From the manifest on disk, as quern report would make it again.
void Publication::write_report() const {
  const fs::path manifest = plan_.folder / kManifestName;
  write_file_atomically(manifest, manifest_to_json(manifest_), kReplace);
  write_file_atomically(plan_.folder / kReportName, report_html(read_report(manifest, {})), kReplace);
}

}  // namespace quern
