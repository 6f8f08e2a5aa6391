#include "verify/intact/verify.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "formats/base/counted.h"
#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/containers/container.h"
#include "formats/model/model_facts.h"
#include "formats/model/model_source.h"
#include "formats/model/skip.h"
#include "formats/statistics/importance.h"
#include "verify/calibrate/feedback.h"
#include "verify/drift/chunked_text.h"
#include "verify/intact/build_check.h"
#include "verify/intact/file_scan.h"
#include "verify/intact/record_search.h"
#include "verify/intact/rederive.h"
#include "verify/intact/rederive_metadata.h"
#include "verify/intact/verdict.h"
#include "verify/records/published.h"
#include "verify/records/signature.h"

// Verification goes from what costs least trust to what costs most reading. The records are looked for and read first (record_search.h);
// then every file is read once, against its record and for weights that are not finite, which gives the sums that the lists and the
// signature are compared with, so that nothing is read twice. With the checkpoint at hand a sample of the chunks is encoded again. Each
// step adds findings and goes on, because damage in one file says nothing about the others; the state of a check follows from the findings
// at the end. A file that was named alone stands for its build. What no record speaks of is looked at too, but never counts as proved.

namespace quern {
namespace fs = std::filesystem;
namespace {

constexpr size_t kShownId = 16;  // hex digits of a key's id

// The container whose files are named so; nullptr when there is none.
const Container* container_if_any(const fs::path& file) {
  const std::string name = file.filename().string();
  const auto found = std::ranges::find_if(all_containers(), [&](const Container* c) { return c->is_file_name(name); });
  return found == all_containers().end() ? nullptr : *found;
}

// "GGUF": the containers that there are.
std::string titles() {
  std::string text;
  for (const Container* container : all_containers()) text += (text.empty() ? "" : " or ") + std::string(container->title());
  return text;
}

class Verification {
 public:
  Verification(const VerifyOptions& options, Progress& progress) : options_(options), progress_(progress) {}

  VerifyReport run() {
    open();
    check_contents();
    check_sums();
    check_signature();
    check_extra_files();
    check_proof();
    if (options_.source) check_source();
    conclude();
    return std::move(report_);
  }

 private:
  void open() {
    const bool is_folder = fs::is_directory(options_.path);
    if (!is_folder && !fs::is_regular_file(options_.path)) {
      throw Error(ErrorKind::kIo, "no such file or folder").file(options_.path.string());
    }
    found_ = find_records(options_.path, report_.findings);
    if (!is_folder) ask_for_set();
    if (is_folder && recorded_sums(folder_).empty() && found_.absent.empty() && !has_documents() && unrecorded_files().empty()) {
      throw Error(ErrorKind::kUsage, "holds no " + titles() + " file and no record of one; name what convert, quantize or publish wrote")
          .file(options_.path.string());
    }
  }

  // A file stands for all files of its model.
  void ask_for_set() {
    const std::string file = *found_.asked.begin();
    for (const std::string& other : files_of_set(container_of(file), folder_.path, file)) {
      if (fs::exists(folder_.path / other)) found_.asked.insert(other);
    }
  }

  bool has_documents() const { return folder_.has(kManifestName) || folder_.has(kSumsName) || folder_.has(kAttestationName); }

  void check_contents() {
    uint64_t total = 0;
    std::error_code ignored;
    for (const BuildRecord& build : folder_.builds) {
      for (const FileRecord& file : build.files) total += folder_.has(file.name) ? fs::file_size(folder_.locate(file.name), ignored) : 0;
    }
    progress_.begin("checking", total);
    report_.bytes_read += total;
    for (const BuildRecord& build : folder_.builds) check_build(folder_, build, actual_, report_.findings, progress_);
    unrecorded_ = unrecorded_files();
    for (const std::string& name : unrecorded_) {
      const std::string sum = check_unrecorded(container_of(name), folder_.path, name, report_.findings, progress_);
      if (!sum.empty()) actual_[recorded_name(name)] = sum;
    }
    progress_.end();
    add_checks_of_contents();
  }

  void add_checks_of_contents() {
    const size_t n_builds = folder_.builds.size();
    add_check("manifest", folder_.manifest.has_value(),
              folder_.manifest ? share_of(n_builds, n_builds + found_.absent.size(), "build") : "there is no manifest.json");
    size_t n_files = 0, n_here = 0, n_read = 0, n_tensors = 0, n_slices = 0;
    for (const BuildRecord& build : folder_.builds) {
      n_files += build.files.size();
      n_here += static_cast<size_t>(std::ranges::count_if(build.files, [&](const FileRecord& file) { return folder_.has(file.name); }));
      n_read += static_cast<size_t>(std::ranges::count_if(build.files, [&](const FileRecord& file) { return was_read(file.name); }));
      n_tensors += build.tensors.size();
      for (const TensorRecord& tensor : build.tensors) n_slices += tensor.slices.size();
    }
    const std::string looked =
        share_of(n_here, n_files, "file") + ", " + counted(n_tensors, "tensor") + ", " + counted(n_slices, "expert slice");
    add_check("contents", n_builds > 0, n_builds == 0 ? "nothing is recorded to compare with" : looked);
    const size_t n_all = n_files + unrecorded_.size();
    n_read += static_cast<size_t>(std::ranges::count_if(unrecorded_, [&](const std::string& name) { return was_read(name); }));
    add_check("structure", n_read > 0, share_of(n_read, n_all, titles() + " file"));
    add_check("weights", n_read > 0,
              "all scales and weights" + (n_read == n_all ? "" : " of " + share_of(n_read, n_all, "file")) + " are finite");
  }

  // Whether a file could be looked at as a whole.
  bool was_read(const std::string& name) const {
    constexpr std::array kUnread = {"missing-shard", "missing-file", "unreadable-file", "stand-in", "truncated", "damaged-header"};
    return std::ranges::none_of(report_.findings, [&](const Finding& finding) {
      return finding.file == name && std::ranges::find(kUnread, finding.kind) != kUnread.end();
    });
  }

  // Files with tensors that belong to no recorded build. Beside a manifest they are foreign, unless one of them was asked for.
  std::vector<std::string> unrecorded_files() const {
    std::vector<std::string> names;
    for (const std::string& name : found_.is_part ? std::vector<std::string>(found_.asked.begin(), found_.asked.end()) : folder_.files) {
      const bool is_file = container_if_any(name) != nullptr || !fs::is_directory(options_.path);
      if (is_file && !is_of_a_build(name) && (found_.is_part || !folder_.manifest)) names.push_back(name);
    }
    return names;
  }

  // A file that is named is taken for what is made by default unless its name says otherwise.
  static const Container& container_of(const std::string& name) {
    const Container* container = container_if_any(name);
    return container != nullptr ? *container : default_container();
  }

  // The recorded name of a file; its own when nothing records it.
  const std::string& recorded_name(const std::string& file) const {
    const auto place = std::ranges::find_if(folder_.places, [&](const auto& one) { return one.second == file; });
    return place == folder_.places.end() ? file : place->first;
  }

  bool is_of_a_build(const std::string& file) const { return !build_sum(recorded_name(file)).empty(); }

  // What a file is now; empty when it is missing.
  const std::string& actual_sum(const std::string& name) {
    const auto [found, inserted] = actual_.try_emplace(name);
    if (!inserted || !folder_.has(name)) return found->second;
    try {
      found->second = hash_file(folder_.locate(name), no_progress());
      report_.bytes_read += fs::file_size(folder_.locate(name));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kIo) throw;
      found->second = "unreadable";
      report_.findings.push_back(damage("contents", "unreadable-file", name, error.message()));
    }
    return found->second;
  }

  // Recorded files that are looked at: of a part only its own and those of its builds, and the documents. Builds that were not downloaded
  // are none of them.
  bool concerns(const std::string& name) const {
    const auto is_file = [&](const FileRecord& file) { return file.name == name; };
    const auto has_file = [&](const BuildRecord& build) { return std::ranges::any_of(build.files, is_file); };
    if (std::ranges::any_of(found_.absent, has_file)) return false;
    if (!found_.is_part || name == kManifestName || name == kSumsName) return true;
    const auto place = folder_.places.find(name);
    return found_.asked.contains(place == folder_.places.end() ? name : place->second) || std::ranges::any_of(folder_.builds, has_file);
  }

  bool has_damage(const std::string& file) const {
    return std::ranges::any_of(report_.findings, [&](const Finding& f) { return f.verdict == Verdict::kDamage && f.file == file; });
  }

  // Compares a list of names and sums with the files and adds the check; damage that was named before is not named again. A file that is
  // no part of a build may be left where it was. Returns the files that are not what the list says.
  std::vector<std::string> compare_sums(const std::vector<Sum>& expected, const char* check, const std::string& list) {
    std::vector<std::string> others;
    size_t n_compared = 0;
    for (const Sum& sum : expected) {
      if (!concerns(sum.name)) continue;
      const std::string& actual = actual_sum(sum.name);
      n_compared += actual.empty() ? 0 : 1;
      if (actual == sum.sha256) {
        proved_.insert(sum.name);
        continue;
      }
      const std::string recorded = build_sum(sum.name);
      if (actual.empty() && recorded.empty()) {
        note_absence(sum.name, check, list);
        continue;
      }
      others.push_back(sum.name);
      if (has_damage(sum.name)) continue;
      if (actual.empty()) {
        report_.findings.push_back(damage(check, "missing-file", sum.name, "is missing, " + list + " lists it"));
      } else if (recorded == actual) {
        report_.findings.push_back(
            damage(check, "changed-sums", list, "gives another sum for " + sum.name + ", which is as the manifest says"));
      } else {
        const char* kind = sum.name == kManifestName ? "changed-manifest" : sum.name == kSumsName ? "changed-sums" : "changed-file";
        report_.findings.push_back(damage(check, kind, sum.name, "was changed: its sum is not the one in " + list));
      }
    }
    if (!others.empty()) failed_.insert(check);
    add_check(check, true, share_of(n_compared, expected.size(), "file") + (others.empty() ? "" : "; not as listed: " + first_few(others)));
    return others;
  }

  void note_absence(const std::string& name, const char* check, const std::string& list) {
    const auto same = [&](const Finding& finding) { return finding.kind == "missing-file" && finding.file == name; };
    if (std::ranges::any_of(report_.findings, same)) return;
    Finding finding = damage(check, "missing-file", name, "is not here, " + list + " lists it");
    finding.verdict = Verdict::kNote;
    report_.findings.push_back(std::move(finding));
  }

  // The sum of a file of a build; empty for other files.
  std::string build_sum(const std::string& name) const {
    for (const BuildRecord& build : folder_.builds) {
      for (const FileRecord& file : build.files) {
        if (file.name == name) return file.sha256;
      }
    }
    return "";
  }

  void check_sums() {
    if (folder_.sums) {
      compare_sums(*folder_.sums, "sums", kSumsName);
    } else {
      add_check("sums", false, folder_.has(kSumsName) ? "cannot be read" : "there is no SHA256SUMS");
    }
  }

  void check_signature() {
    if (!folder_.attestation) {
      if (options_.public_key && has_documents() && !folder_.has(kAttestationName)) {
        report_.findings.push_back(damage("signature", "not-signed", kAttestationName, "is missing: the folder is not signed"));
      }
      return add_check("signature", options_.public_key && has_documents(), "there is no attestation");
    }
    try {
      const Envelope envelope = parse_envelope(*folder_.attestation);
      std::vector<Sum> subjects;
      for (const Subject& subject : statement_subjects(envelope.payload)) subjects.push_back({subject.name, subject.sha256});
      check_signer(envelope);
      not_as_signed_ = compare_sums(subjects, "signed", kAttestationName);
      check_unsigned(subjects);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kFormat || (options_.public_key && error.what() != error.message())) throw;
      report_.findings.push_back(damage("signature", "changed-attestation", kAttestationName, error.message()));
      add_check("signature", true, "");
    }
  }

  // Who signed; the files are another question.
  void check_signer(const Envelope& envelope) {
    const std::string claimed = envelope.signatures.empty() ? "" : envelope.signatures.front().key_id;
    signer_ = claimed.empty() ? "nobody" : "key " + printable(claimed.substr(0, kShownId));
    if (!options_.public_key) return add_check("signature", false, "by " + signer_ + " as it says; --key PUB.pem checks that");
    const Ed25519Key key = Ed25519Key::read_public(*options_.public_key);
    if (!is_signed_by(envelope, key)) {
      report_.findings.push_back(
          damage("signature", "wrong-key", kAttestationName,
                 claimed == key.id() ? "was changed after this key signed it"
                                     : "is not signed by this key (" + key.id().substr(0, kShownId) + "); it claims to be by " + signer_));
    }
    add_check("signature", true, "by " + signer_);
  }

  // Builds that the statement leaves out prove nothing.
  void check_unsigned(const std::vector<Sum>& subjects) {
    for (const BuildRecord& build : folder_.builds) {
      for (const FileRecord& file : build.files) {
        if (std::ranges::find(subjects, file.name, &Sum::name) != subjects.end()) continue;
        report_.findings.push_back(damage("signed", "not-signed", file.name, "is not among the signed files"));
      }
    }
  }

  void check_extra_files() {
    if (found_.is_part || !folder_.manifest) return;
    for (const std::string& name : folder_.files) {
      if (name == kSumsName || name == kAttestationName || name.ends_with(".pub.pem") || folder_.find_sum(name) != nullptr) continue;
      if (is_of_a_build(name)) continue;
      Finding finding = damage("contents", "foreign-file", name, "does not belong to what was published");
      if (container_if_any(name) == nullptr) finding.verdict = Verdict::kNote;
      report_.findings.push_back(std::move(finding));
    }
  }

  // A check that had nothing to compare with proves nothing.
  void check_proof() {
    for (const BuildRecord& build : found_.absent) {
      Finding finding = damage("contents", "absent-build", "", "the build " + printable(build.label) + " is recorded and not here");
      finding.verdict = Verdict::kNote;
      report_.findings.push_back(std::move(finding));
    }
    std::set<std::string> sets;
    for (const std::string& name : unrecorded_) {
      if (proved_.contains(recorded_name(name)) || has_damage(name)) continue;
      if (sets.insert(set_of(name)).second)
        add_unproved("no-record", name,
                     "no record of it was found beside it or above: what it should be is not known, only that it can be read");
    }
    if (folder_.builds.empty() && unrecorded_.empty()) add_unproved("nothing-checked", "", "none of the files that are recorded is here");
  }

  // What all shards of a model share.
  static std::string set_of(std::string name) {
    std::erase_if(name, [](char c) { return c >= '0' && c <= '9'; });
    return name;
  }

  void add_unproved(const char* kind, const std::string& file, const std::string& message) {
    Finding finding = damage("contents", kind, file, message);
    finding.verdict = Verdict::kUnprovable;
    report_.findings.push_back(std::move(finding));
  }

  // The importance matrix that the build was made with: the one given, or the one of that sum that is published beside it. Without it
  // rederive() says what cannot be proved.
  Importance importance_of(const BuildRecord& build, const ModelSource& source) {
    const std::string sha256 = build.settings.find_string(kImatrixKey).value_or("");
    if (sha256.empty()) return {};
    if (options_.imatrix) return Importance(read_imatrix(*options_.imatrix), source.tensors());
    if (folder_.manifest) {
      for (const InputRecord& input : folder_.manifest->inputs) {
        if (input.sha256 == sha256 && folder_.has(input.name)) return Importance(read_imatrix(folder_.path / input.name), source.tensors());
      }
    }
    return {};
  }

  // Where the statistics of a build with error feedback come from: a folder, or the text, of which its record says how many tokens were run
  // and in which mode. nullptr for a build without, and when neither is given.
  std::unique_ptr<BuildFeedback> feedback_of(const BuildRecord& build, const ModelSource& source) const {
    const std::optional<std::string> mode = build.settings.find_string(kFeedbackModeKey);
    if (!mode || (options_.statistics.empty() && options_.calib_text.empty())) return nullptr;
    FeedbackOptions feedback{.mode = "", .statistics = options_.statistics, .text = options_.calib_text};
    if (feedback.statistics.empty()) feedback.mode = *mode == kSequentialMode ? "sequential" : "on";
    feedback.tokens = std::max<int64_t>(build.settings.find_int(kFeedbackTokensKey).value_or(1), 1);
    return make_feedback(feedback, source, *options_.source, default_evaluation_memory());
  }

  void check_source() {
    if (folder_.builds.empty())
      throw Error(ErrorKind::kUsage, "--source: nothing is recorded of this build, so nothing can be derived again");
    RederiveOptions options;
    options.sample = options_.sample;
    options.tensors = options_.tensors;
    options.seed = options_.seed;
    RederiveCount sum;
    size_t n_keys = 0;
    const size_t before = report_.count(Verdict::kDamage);
    for (const BuildRecord& build : folder_.builds) {
      ModelOptions model;
      model.mtp = build.mtp;
      if (folder_.manifest && !folder_.manifest->base_model.empty()) model.base_models = {folder_.manifest->base_model};
      const std::unique_ptr<ModelSource> source = open_model(*options_.source, model, recorded_skip(build.settings));
      const Importance importance = importance_of(build, *source);
      const std::unique_ptr<BuildFeedback> feedback = feedback_of(build, *source);
      const std::unique_ptr<FeedbackEncoder> encoder = feedback ? feedback->open() : nullptr;
      if (feedback && feedback->follows()) {
        feedback->follow(recorded_types(build, *source), &importance, effort_of(build));
      }
      options.feedback = encoder.get();
      const RederiveCount count = rederive(folder_, build, *source, importance, options, report_.findings, progress_);
      n_keys += rederive_metadata(build, *source, folder_.manifest ? &*folder_.manifest : nullptr, report_.findings);
      sum.n_tensors += count.n_tensors;
      sum.n_chunks += count.n_chunks;
      sum.n_chunks_in_all += count.n_chunks_in_all;
      report_.bytes_read += source->bytes_read();
    }
    const bool differs = report_.count(Verdict::kDamage) != before;
    if (folder_.manifest) compare_source_files(differs || options_.sample >= 1);
    std::string detail = counted(static_cast<size_t>(sum.n_chunks), "chunk") + " of " + std::to_string(sum.n_chunks_in_all) + " in " +
                         counted(static_cast<size_t>(sum.n_tensors), "tensor") + " and " + counted(n_keys, "metadata key") +
                         " derived again";
    if (options_.sample < 1 && !options_.tensors) detail += ", seed " + std::to_string(options_.seed);
    add_check("source", true, detail);
  }

  // Sizes always; sums of files with tensors, which cost a reading of the whole checkpoint, when all is derived again or something differs.
  void compare_source_files(bool with_sums) {
    const bool is_folder = fs::is_directory(*options_.source);
    for (const SourceRecord& record : folder_.manifest->sources) {
      const fs::path path = is_folder ? *options_.source / record.name : options_.source->parent_path() / record.name;
      const bool has_tensors = path.extension() == ".safetensors" || container_if_any(path) != nullptr;
      std::error_code ignored;
      if (!fs::is_regular_file(path)) {
        add_changed_source(has_tensors, "the checkpoint has no file " + printable(record.name));
      } else if (fs::file_size(path, ignored) != record.size_bytes ||
                 ((with_sums || !has_tensors) && hash_file(path, no_progress()) != record.sha256)) {
        add_changed_source(has_tensors,
                           "the file " + printable(record.name) + " of the checkpoint is not the one that the builds were made from");
      }
    }
  }

  // Of a document only what it says matters, and that was compared key by key.
  void add_changed_source(bool has_tensors, const std::string& message) {
    report_.findings.push_back(damage("source", "changed-source", "", message));
    if (!has_tensors) report_.findings.back().verdict = Verdict::kNote;
  }

  void add_check(const char* name, bool done, const std::string& detail) {
    report_.checks.push_back({name, done ? CheckState::kOk : CheckState::kSkipped, detail});
  }

  // States and the verdict follow from the findings.
  void conclude() {
    for (Check& check : report_.checks) {
      const bool damaged = failed_.contains(check.name) || std::ranges::any_of(report_.findings, [&](const Finding& finding) {
                             return finding.check == check.name && finding.verdict == Verdict::kDamage;
                           });
      if (damaged) check.state = CheckState::kFailed;
      if (damaged && check.name == "weights") check.detail = "not all scales and weights are finite";
    }
    for (Finding& finding : report_.findings) {  // files by the names that they have here
      if (const auto place = folder_.places.find(finding.file); place != folder_.places.end()) finding.file = place->second;
    }
    report_.verdict = verdict_of(report_, facts());
  }

  VerdictFacts facts() const {
    VerdictFacts facts{found_, signer_, options_.public_key.has_value(), not_as_signed_, proved_.size(), ""};
    if (options_.source)
      facts.source = (options_.sample < 1 ? "a sample derived again from " : "derived again from ") + shown_name(*options_.source);
    return facts;
  }

  const VerifyOptions& options_;
  Progress& progress_;
  FoundRecords found_;
  PublishedFolder& folder_ = found_.folder;
  std::vector<std::string> unrecorded_;  // files of no recorded build
  std::map<std::string, std::string> actual_;
  std::set<std::string> proved_;  // recorded files whose sums are those of a list
  std::set<std::string> failed_;  // checks that failed without a finding of their own
  std::vector<std::string> not_as_signed_;
  std::string signer_;  // by the attestation; empty without one
  VerifyReport report_;
};

}  // namespace

VerifyReport verify(const VerifyOptions& options, Progress& progress) { return Verification(options, progress).run(); }

}  // namespace quern
