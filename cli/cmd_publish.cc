#include <algorithm>
#include <functional>
#include <iostream>
#include <memory>

#include "cli/build.h"
#include "cli/evaluation.h"
#include "cli/progress_bar.h"
#include "convert/fill/destination.h"
#include "convert/fill/journal.h"
#include "convert/plan/layout.h"
#include "formats/base/file.h"
#include "formats/base/parallel.h"
#include "formats/base/sha256.h"
#include "formats/base/version.h"
#include "formats/gguf/gguf.h"
#include "recipes/machines.h"
#include "recipes/size_estimate.h"
#include "verify/drift/drift_report.h"
#include "verify/intact/file_scan.h"
#include "verify/publish/publish.h"
#include "verify/publish/readme.h"
#include "verify/records/published.h"
#include "verify/report/report.h"

namespace quern::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDefaultSplit = "45GB";
constexpr auto kReplace = OutputFile::Overwrite::kAllow;

struct PublishOptions {
  std::string model, folder;
  OutputOptions output;
  RunOptions run;
  std::string eval_text, key, base_model, revision, license, name, quantized_by;
};

ModelOptions model_options(const PublishOptions& options) {
  ModelOptions model;
  if (!options.name.empty()) model.name = options.name;
  if (!options.license.empty()) model.license = options.license;
  if (!options.base_model.empty()) model.base_models = {options.base_model};
  return model;
}

// Two publications of one id give the same bytes.
std::string publication_id(const Plan& plan, const PublishOptions& options) {
  std::string text = plan_id(plan) + "\n" + kVersion;
  for (const std::string& file : {options.eval_text, options.output.feedback.text}) {
    text += "\n" + (file.empty() ? "" : hash_file(file, no_progress()));
  }
  return sha256_hex(text);
}

void drop_unfinished_outputs_problems(const Plan& plan, std::vector<Problem>& problems) {
  const std::vector<Problem> of_destination = check_destination(plan);
  std::erase_if(problems, [&](const Problem& problem) {
    return std::ranges::any_of(of_destination, [&](const Problem& other) { return other.message == problem.message; });
  });
}

// llama-imatrix notes its texts as they were given, folders and all, and the file is published as it is.
void check_imatrix_texts(const std::string& imatrix) {
  if (imatrix.empty() || fs::path(imatrix).extension() != ".gguf") return;
  const gguf::Header header = gguf::read_header(InputFile(imatrix));
  const auto* texts = header.metadata.find_string_array("imatrix.datasets");
  if (texts == nullptr) return;
  for (const std::string& text : *texts) {
    if (text.find('/') == std::string::npos && text.find('\\') == std::string::npos) continue;
    throw Error(ErrorKind::kUsage, "names its text by the path '" + printable(text) +
                                       "', which would be published; change it first, with quern edit "
                                       "--set 'imatrix.datasets=[\"name\"]' --force")
        .file(imatrix);
  }
}

// The largest output that fits on each machine.
std::vector<MachineAdvice> advise(const ModelSource& source, const Plan& plan) {
  std::vector<LogicalTensor> tensors;
  for (const PlannedTensor& tensor : plan.tensors) tensors.push_back(source.tensors()[tensor.source_index]);
  std::vector<std::pair<const PlannedOutput*, RunCost>> costs;
  for (const PlannedOutput& output : plan.outputs) {
    std::vector<DType> types;
    for (const Placement& placement : output.tensors) types.push_back(placement.type);
    costs.emplace_back(&output, run_cost(plan.metadata, tensors, types, kAdviceContext));
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

// One run of the verb.
class Publication {
 public:
  Publication(const PublishOptions& options, OpenedPlan& opened)
      : options_(options), source_(*opened.source), opened_(opened), plan_(*opened.plan) {}

  void run() {
    if (!options_.key.empty()) key_.emplace(Ed25519Key::read_private(options_.key));
    begin();
    build();
    hash_checkpoint();
    publish_inputs();
    measure();
    write_readme();
    write_report();
    write_documents(plan_.folder, manifest_, key_ ? &*key_ : nullptr);
    remove_state(plan_.folder);
  }

 private:
  static void tell(const std::string& text) { std::cerr << "quern: " << text << '\n'; }

  void begin() {
    const std::string id = publication_id(plan_, options_);
    const std::optional<PublishState> found = fs::is_directory(plan_.folder) ? read_state(plan_.folder) : std::nullopt;
    const std::vector<std::string> present =
        fs::is_directory(plan_.folder) ? list_published_files(plan_.folder) : std::vector<std::string>();
    const bool goes_on = found && found->id == id;
    if (!goes_on && !options_.run.force && (found || !present.empty())) {
      throw Error(ErrorKind::kUsage, found ? "holds an unfinished publication of another source or with other options; --force replaces it"
                                           : "is not empty; --force replaces what is published there")
          .file(plan_.folder.string());
    }
    check_foreign_files(present);
    make_folder(plan_.folder);
    state_ = goes_on ? *found : PublishState{id, {}, ""};
    continued_ = goes_on;
    write_state(plan_.folder, state_);
  }

  void check_foreign_files(const std::vector<std::string>& present) const {
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

  std::string imatrix_name() const { return fs::path(options_.output.imatrix).filename(); }

  // Converts what is not there yet, all of it in one read.
  void build() {
    ProgressBar bar;
    Plan missing = plan_;
    std::vector<std::optional<BuildRecord>> records;
    const bool interrupted = begun_bytes(plan_) > 0;  // in a run that made all of them: it is gone on with as a whole
    for (const PlannedOutput& output : plan_.outputs) {
      records.push_back(continued_ && !interrupted ? finished_build(plan_, output, bar) : std::nullopt);
      if (!records.back()) continue;
      tell(output.label + " is complete; it is not made again");
      std::erase_if(missing.outputs, [&](const PlannedOutput& planned) { return planned.label == output.label; });
    }
    if (!missing.outputs.empty()) {
      if (const int code = report_problems(check_destination(missing)); code != 0) throw Error(ErrorKind::kIo, "nothing was built");
      print_report(run_builds(opened_, missing, bar), false);
    }
    for (size_t i = 0; i < records.size(); ++i) {
      if (!records[i]) records[i] = finished_record(plan_.outputs[i]);
      manifest_.builds.push_back(std::move(*records[i]));
    }
  }

  BuildRecord finished_record(const PlannedOutput& output) const {
    constexpr uint64_t kMaxRecordBytes = uint64_t{1} << 30;
    return build_record_from_json(read_text_file(plan_.folder / (output.stem + ".tensors.json"), kMaxRecordBytes));
  }

  void hash_checkpoint() {
    manifest_.quern_version = kVersion;
    manifest_.base_model = options_.base_model;
    manifest_.revision = options_.revision;
    if (state_.sources.empty()) {
      ProgressBar bar;
      state_.sources = hash_sources(source_, bar);
      write_state(plan_.folder, state_);
    }
    manifest_.sources = state_.sources;
  }

  // Statistics are published themselves, of texts only the sums.
  void publish_inputs() {
    if (const std::string& imatrix = options_.output.imatrix; !imatrix.empty()) {
      const fs::path copy = plan_.folder / imatrix_name();
      constexpr uint64_t kMaxImatrixBytes = uint64_t{1} << 32;
      if (!fs::exists(copy) || !fs::equivalent(copy, imatrix)) {
        const std::vector<std::byte> bytes = read_file(imatrix, kMaxImatrixBytes);
        write_file_atomically(copy, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, kReplace);
      }
      manifest_.inputs.push_back({"imatrix", imatrix_name(), fs::file_size(copy), hash_file(copy, no_progress())});
    }
    const auto add_text = [this](const char* kind, const std::string& file) {
      if (!file.empty()) manifest_.inputs.push_back({kind, "", fs::file_size(file), hash_file(file, no_progress())});
    };
    add_text("calibration text", options_.output.feedback.text);
    add_text("evaluation text", options_.eval_text);
  }

  void measure() {
    if (options_.eval_text.empty()) return;
    if (state_.drift.empty()) {
      state_.drift = drift_to_json(measured(), DriftDetail::kSummary);
      write_state(plan_.folder, state_);
    }
    manifest_.drift = state_.drift;
  }

  DriftReport measured() const {
    EvaluationOptions evaluation;
    evaluation.text = options_.eval_text;
    evaluation.memory = options_.run.memory;
    EvalOptions eval = eval_options(evaluation);
    const ChunkedText text = load_chunks(source_, evaluation);
    ProgressBar bar;
    OriginalModel original(source_, eval, text.chunks, true, bar);
    eval.memory_bytes -= std::min(eval.memory_bytes / 2, original.resident_bytes());
    DriftReport report;
    report.original = fs::path(plan_.metadata.find_string("general.name").value_or("original")).filename();
    report.text = fs::path(options_.eval_text).filename();
    report.n_ctx = evaluation.ctx;
    report.n_chunks = static_cast<int64_t>(text.chunks.size());
    report.rows.push_back({kNoiseFloorName, 0, 0.0, original.noise_floor()});
    for (const BuildRecord& build : manifest_.builds) {
      const fs::path first = plan_.folder / build.files.front().name;
      const std::unique_ptr<ModelSource> opened = open_model(first);
      tell("measuring " + build.label);
      report.rows.push_back(
          {first.filename(), size_on_disk(*opened), bits_per_weight(*opened), measure_drift(*opened, eval, original, bar)});
    }
    return report;
  }

  void write_readme() const {
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
  void write_report() const {
    const fs::path manifest = plan_.folder / kManifestName;
    write_file_atomically(manifest, manifest_to_json(manifest_), kReplace);
    write_file_atomically(plan_.folder / kReportName, report_html(read_report(manifest, {})), kReplace);
  }

  const PublishOptions& options_;
  const ModelSource& source_;
  OpenedPlan& opened_;
  const Plan& plan_;
  std::optional<Ed25519Key> key_;
  PublishState state_;
  bool continued_ = false;
  Manifest manifest_;
};

int run_publish(const PublishOptions& options) {
  const ThreadLimit limit(options.run.threads);
  PlanOptions plan_options;
  plan_options.output = options.folder;
  OutputOptions output = options.output;
  if (output.split_size.empty()) output.split_size = kDefaultSplit;
  set_plan_options(output, options.run, plan_options);
  plan_options.force = true;  // whether the folder may be written to is decided below, for all steps
  plan_options.folder_per_type = true;
  OpenedPlan opened = open_and_plan(options.model, model_options(options), plan_options, output, options.run);
  if (opened.plan) drop_unfinished_outputs_problems(*opened.plan, opened.problems);
  if (const int code = report_problems(opened.problems); code != 0) return code;
  const Plan& plan = *opened.plan;
  announce(*opened.source, plan, options.folder);
  if (options.run.dry_run) {
    print_plan(plan, thread_limit(), options.run.json);
    return 0;
  }
  check_imatrix_texts(options.output.imatrix);
  Publication(options, opened).run();
  for (const std::string& name : list_published_files(plan.folder)) std::cout << name << '\n';
  return 0;
}

}  // namespace

void add_publish(CLI::App& app, Context& context) {
  const auto options = std::make_shared<PublishOptions>();
  CLI::App* verb = app.add_subcommand("publish", "Make a folder ready to upload: builds, records, card");
  verb->group("Publish")->footer("quern publish DeepSeek-V3 -o repo --type Q4_K_M --sign release.pem");
  const auto add = [verb](const char* name, std::string& value, const char* what, const char* type, const char* group) {
    return verb->add_option(name, value, what)->type_name(type)->group(group);
  };
  verb->add_option("MODEL", options->model, "checkpoint folder, or a GGUF file")->required()->group("Input");
  add("--eval-text", options->eval_text, "measure what each build lost on this text", "FILE", "Input");
  add("--calib-text", options->output.feedback.text, "of imatrix and feedback; its sum is published", "FILE", "Quality");
  verb->add_option("-o,--output", options->folder, "the folder; a begun one is continued")
      ->type_name("FOLDER")
      ->required()
      ->group("Output");
  verb->add_option("--type", options->output.types, "Q4_K_M, Q8_0, lossless ...")
      ->type_name("TYPE")
      ->allow_extra_args(false)
      ->group("Output");
  verb->add_option("--recipe", options->output.recipes, "recipe file or name; a build each")
      ->type_name("R")
      ->allow_extra_args(false)
      ->group("Output");
  verb->add_option("--tensor-type", options->output.tensor_types, "another type for some; first match wins")
      ->type_name("REGEX=T")
      ->allow_extra_args(false)
      ->group("Output");
  add("--imatrix", options->output.imatrix, "importance matrix, published with the builds", "FILE", "Quality");
  add_feedback_options(*verb, options->output.feedback, "Quality");
  add("--split-size", options->output.split_size, "tensor bytes per file; default 45GB", "SIZE", "Output")->check(a_size);
  add("--sign", options->key, "private key, from 'quern keygen'", "KEY.pem", "Output");
  add("--base-model", options->base_model, "hub id of the original", "ID", "About");
  add("--revision", options->revision, "of the original on the hub", "SHA", "About");
  add("--name", options->name, "default: from README.md or the folder", "NAME", "About");
  add("--license", options->license, "as apache-2.0; default: from README.md", "ID", "About");
  add("--quantized-by", options->quantized_by, "your name on the hub", "NAME", "About");
  add_run_options(*verb, options->run);
  verb->callback([options, &context] { context.command = [options] { return run_publish(*options); }; });
}

}  // namespace quern::cli
