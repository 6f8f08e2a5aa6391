#include "verify/records/manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "convert/record/build_record_json.h"
#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/base/json_tree.h"

namespace quern {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kSchema = "quern.manifest/1";
constexpr uint64_t kMaxManifestBytes = uint64_t{1} << 30;
constexpr int kMaxDepth = 24;
constexpr size_t kHexDigits = 64;

ordered_json to_json(const SourceRecord& source) {
  return {{"name", source.name}, {"size_bytes", source.size_bytes}, {"sha256", source.sha256}};
}

ordered_json to_json(const InputRecord& input) {
  ordered_json entry = {{"kind", input.kind}};
  if (!input.name.empty()) entry["name"] = input.name;
  if (input.size_bytes != 0) entry["size_bytes"] = input.size_bytes;
  entry["sha256"] = input.sha256;
  return entry;
}

Manifest parse(const json& root) {
  if (root.at("schema") != kSchema) throw Error(ErrorKind::kFormat, "the schema is not " + std::string(kSchema));
  Manifest manifest;
  manifest.quern_version = root.at("quern_version").get<std::string>();
  manifest.base_model = root.value("base_model", "");
  manifest.revision = root.value("revision", "");
  for (const json& source : root.at("sources")) {
    manifest.sources.push_back(
        {source.at("name").get<std::string>(), integer_from<uint64_t>(source.at("size_bytes")), source.at("sha256").get<std::string>()});
  }
  for (const json& input : root.at("inputs")) {
    manifest.inputs.push_back({input.at("kind").get<std::string>(), input.value("name", ""),
                               input.contains("size_bytes") ? integer_from<uint64_t>(input.at("size_bytes")) : 0,
                               input.at("sha256").get<std::string>()});
  }
  if (root.contains("drift")) manifest.drift = root.at("drift").dump();
  for (const json& build : root.at("builds")) manifest.builds.push_back(build_record_from_tree(build));
  return manifest;
}

}  // namespace

std::string manifest_to_json(const Manifest& manifest) {
  ordered_json head = {{"schema", kSchema}, {"quern_version", manifest.quern_version}};
  if (!manifest.base_model.empty()) head["base_model"] = manifest.base_model;
  if (!manifest.revision.empty()) head["revision"] = manifest.revision;
  head["sources"] = ordered_json::array();
  for (const SourceRecord& source : manifest.sources) head["sources"].push_back(to_json(source));
  head["inputs"] = ordered_json::array();
  for (const InputRecord& input : manifest.inputs) head["inputs"].push_back(to_json(input));
  if (!manifest.drift.empty()) head["drift"] = ordered_json::parse(manifest.drift);
  std::string text = head.dump(1);
  text.resize(text.size() - 2);  // the builds go inside
  text += ",\n \"builds\": [\n";
  for (size_t i = 0; i < manifest.builds.size(); ++i) {
    text += build_record_to_json(manifest.builds[i]);
    if (i + 1 < manifest.builds.size()) text += ",";
  }
  return text + "]}\n";
}

Manifest manifest_from_json(std::string_view text) {
  try {
    return parse(parse_json_tree(text, kMaxDepth));
  } catch (const json::exception& error) {
    throw Error(ErrorKind::kFormat, std::string("not a manifest: ") + printable(error.what()));
  }
}

Manifest read_manifest(const std::filesystem::path& file) {
  try {
    return manifest_from_json(read_text_file(file, kMaxManifestBytes));
  } catch (Error& error) {
    error.file(file.string());
    throw;
  }
}

std::vector<Sum> parse_sums(std::string_view text) {
  std::vector<Sum> sums;
  for (size_t line_number = 1; !text.empty(); ++line_number) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const bool hex = line.size() > kHexDigits + 2 && std::ranges::all_of(line.substr(0, kHexDigits), [](char c) {
                       return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
                     });
    if (!hex || line[kHexDigits] != ' ' || (line[kHexDigits + 1] != ' ' && line[kHexDigits + 1] != '*')) {
      throw Error(ErrorKind::kFormat, "line " + std::to_string(line_number) + " is not 'SHA-256, two spaces, name'");
    }
    sums.push_back({std::string(line.substr(kHexDigits + 2)), std::string(line.substr(0, kHexDigits))});
  }
  return sums;
}

}  // namespace quern
