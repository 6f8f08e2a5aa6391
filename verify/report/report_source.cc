#include <nlohmann/json.hpp>

#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/base/json_tree.h"
#include "formats/gguf/gguf_types.h"
#include "verify/records/manifest.h"
#include "verify/records/signature.h"
#include "verify/report/report.h"

// What a file is follows from the schema that it names and not from its own name. A GGUF file is the likely mistake, and is told from
// damaged JSON by its first bytes to say what was meant.

namespace quern {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 30;
constexpr int kMaxDepth = 24;

std::string schema_of(std::string_view text) {
  const nlohmann::json root = parse_json_tree(text, kMaxDepth);
  const auto found = root.is_object() ? root.find("schema") : root.end();
  return found != root.end() && found->is_string() ? found->get<std::string>() : "";
}

bool is_gguf(const std::filesystem::path& path) {
  const InputFile file(path);
  std::string magic(gguf::kMagic.size(), '\0');
  if (file.size_bytes() < magic.size()) return false;
  file.read_at(0, std::as_writable_bytes(std::span(magic)));
  return magic == gguf::kMagic;
}

// The key that a signature names; whether it is that key's, verify says.
std::string named_key(const std::filesystem::path& attestation) {
  if (!std::filesystem::exists(attestation)) return "";
  try {
    const Envelope envelope = parse_envelope(read_text_file(attestation, kMaxBytes));
    return envelope.signatures.empty() ? "" : envelope.signatures.front().key_id;
  } catch (const Error&) {
    return "";
  }
}

// A manifest is called like every other: its folder tells it apart.
std::string origin_of(const std::filesystem::path& path) {
  if (path.filename() != kManifestName) return path.filename();
  return std::filesystem::absolute(path).lexically_normal().parent_path().filename();
}

Report parse(const std::string& text, const std::vector<BuildRecord>& records) {
  const std::string schema = schema_of(text);
  if (schema == "quern.drift/1") return report_from_drift(drift_from_json(text), records);
  if (schema == "quern.manifest/1") return report_from_manifest(manifest_from_json(text));
  throw Error(ErrorKind::kFormat,
              "neither a manifest nor the JSON of quern drift" + (schema.empty() ? "" : ": its schema is '" + printable(schema) + "'"));
}

}  // namespace

Report read_report(const std::filesystem::path& path, const std::vector<BuildRecord>& records) {
  try {
    if (is_gguf(path)) {
      throw Error(ErrorKind::kUsage, "is a GGUF file; report draws what 'quern drift --json' or 'quern publish' wrote");
    }
    Report report = parse(read_text_file(path, kMaxBytes), records);
    report.origin = origin_of(path);
    if (report.has_manifest) report.key_id = named_key(path.parent_path() / kAttestationName);
    for (const ReportInput& input : report.inputs) {
      const std::filesystem::path file = path.parent_path() / input.name;
      if (input.kind == "imatrix" && !input.name.empty() && std::filesystem::exists(file))
        report.coverage = expert_coverage(read_imatrix(file));
    }
    return report;
  } catch (Error& error) {
    error.file(path.string());
    throw;
  }
}

}  // namespace quern
