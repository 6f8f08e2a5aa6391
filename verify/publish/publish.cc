#include "verify/publish/publish.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "convert/plan/layout.h"
#include "convert/record/build_record_json.h"
#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/base/json_tree.h"
#include "formats/base/sha256.h"
#include "formats/model/model_documents.h"
#include "verify/intact/build_check.h"
#include "verify/intact/file_scan.h"
#include "verify/records/published.h"

// Whether a build is finished is not remembered but looked up: a record in the folder must name the files, sizes, version and metadata that
// the plan asks for, and the files must have the sums that the record gives. So a publication goes on behind the last whole build whatever
// interrupted it, and what was damaged meanwhile is made again. The hidden state file only spares what is expensive and in no other file,
// the sums of the checkpoint and the drift; an unreadable one costs that time again and nothing else.
//
// Documents are written in the order in which one vouches for the other: the manifest for the builds, SHA256SUMS for the manifest and every
// other file, the attestation for all of them and SHA256SUMS. The records that convert left go only when the manifest that holds them has
// its name.

namespace quern {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr auto kReplace = OutputFile::Overwrite::kAllow;
constexpr const char* kStateName = ".quern-publish.json";
constexpr const char* kStateSchema = "quern.publish/1";
constexpr uint64_t kMaxDocumentBytes = uint64_t{1} << 30;
constexpr int kMaxDepth = 24;
constexpr std::string_view kRecordEnd = ".tensors.json";

// Records of the builds in a folder, from the lists that convert wrote and from a manifest that is already there.
std::vector<BuildRecord> recorded_builds(const fs::path& folder) {
  std::vector<Finding> ignored;
  std::vector<BuildRecord> builds = open_published(folder, ignored).builds;
  for (const std::string& name : list_published_files(folder)) {
    if (!name.ends_with(kRecordEnd)) continue;
    try {
      builds.push_back(build_record_from_json(read_text_file(folder / name, kMaxDocumentBytes)));
    } catch (const Error&) {
      continue;  // it lists something else or is cut: its build is made again
    }
  }
  return builds;
}

bool is_record_of(const BuildRecord& record, const Plan& plan, const PlannedOutput& output) {
  const auto is_file = [](const FileRecord& is, const OutputFileInfo& file) {
    return is.name == file.name && is.size_bytes == file.size_bytes;
  };
  if (!std::ranges::equal(record.files, files_of(output), is_file) || record.quern_version != plan.quern_version) return false;
  return record.keys == recorded_values(plan, output);
}

std::string predicate_of(const Manifest& manifest) {
  ordered_json builds = ordered_json::array();
  for (const BuildRecord& build : manifest.builds) builds.push_back(build.label);
  ordered_json predicate = {{"quern_version", manifest.quern_version}, {"builds", builds}};
  if (!manifest.base_model.empty()) predicate["base_model"] = manifest.base_model;
  if (!manifest.revision.empty()) predicate["revision"] = manifest.revision;
  return predicate.dump();
}

}  // namespace

std::optional<PublishState> read_state(const fs::path& folder) {
  if (!fs::exists(folder / kStateName)) return std::nullopt;
  try {
    const json root = parse_json_tree(read_text_file(folder / kStateName, kMaxDocumentBytes), kMaxDepth);
    if (root.at("schema") != kStateSchema) return std::nullopt;
    PublishState state{root.at("id").get<std::string>(), {}, root.value("drift", "")};
    for (const json& source : root.at("sources")) {
      state.sources.push_back(
          {source.at("name").get<std::string>(), integer_from<uint64_t>(source.at("size_bytes")), source.at("sha256").get<std::string>()});
    }
    return state;
  } catch (const json::exception&) {
    return std::nullopt;
  } catch (const Error&) {
    return std::nullopt;
  }
}

void write_state(const fs::path& folder, const PublishState& state) {
  ordered_json root = {{"schema", kStateSchema}, {"id", state.id}, {"sources", ordered_json::array()}};
  for (const SourceRecord& source : state.sources) {
    root["sources"].push_back({{"name", source.name}, {"size_bytes", source.size_bytes}, {"sha256", source.sha256}});
  }
  if (!state.drift.empty()) root["drift"] = state.drift;
  write_file_atomically(folder / kStateName, root.dump(1) + "\n", kReplace);
}

void remove_state(const fs::path& folder) { fs::remove(folder / kStateName); }

std::optional<BuildRecord> finished_build(const Plan& plan, const PlannedOutput& output, Progress& progress) {
  PublishedFolder folder;
  folder.path = plan.folder;
  folder.files = list_published_files(plan.folder);
  for (BuildRecord& record : recorded_builds(plan.folder)) {
    if (!is_record_of(record, plan, output)) continue;
    std::map<std::string, std::string> sums;
    std::vector<Finding> findings;
    uint64_t total = 0;
    for (const FileRecord& file : record.files) total += file.size_bytes;
    progress.begin("checking", total);
    check_build(folder, record, sums, findings, progress);
    progress.end();
    if (findings.empty()) return std::move(record);
  }
  return std::nullopt;
}

std::vector<SourceRecord> hash_sources(const ModelSource& source, const fs::path& model, Progress& progress) {
  std::vector<SourceFile> files(source.files().begin(), source.files().end());
  for (SourceFile& document : documents_of(model)) files.push_back(std::move(document));
  uint64_t total = 0;
  for (const SourceFile& file : files) total += file.size_bytes;
  progress.begin("hashing the checkpoint", total);
  std::vector<SourceRecord> records;
  for (const SourceFile& file : files) records.push_back({file.name, file.size_bytes, hash_file(file.path, progress)});
  progress.end();
  return records;
}

void write_documents(const fs::path& folder, const Manifest& manifest, const Ed25519Key* key) {
  const std::string manifest_text = manifest_to_json(manifest);
  write_file_atomically(folder / kManifestName, manifest_text, kReplace);
  for (const std::string& name : list_published_files(folder)) {
    if (name.ends_with(kRecordEnd)) fs::remove(folder / name);
  }
  std::vector<Subject> subjects;
  for (const BuildRecord& build : manifest.builds) {
    for (const FileRecord& file : build.files) subjects.push_back({file.name, file.sha256});
  }
  for (const std::string& name : list_published_files(folder)) {
    const bool known = std::ranges::find(subjects, name, &Subject::name) != subjects.end();
    if (known || name == kSumsName || name == kAttestationName) continue;
    if (name.ends_with(".part")) continue;  // a kill left it; what it was to become is written anew, here or by who wrote the others
    subjects.push_back({name, hash_file(folder / name, no_progress())});
  }
  std::ranges::sort(subjects, {}, &Subject::name);
  std::string sums;
  for (const Subject& subject : subjects) sums += subject.sha256 + "  " + subject.name + "\n";
  write_file_atomically(folder / kSumsName, sums, kReplace);
  if (key == nullptr) return;
  subjects.insert(subjects.begin(), {kSumsName, sha256_hex(sums)});
  write_file_atomically(folder / kAttestationName, signed_envelope(*key, make_statement(subjects, predicate_of(manifest))), kReplace);
}

}  // namespace quern
