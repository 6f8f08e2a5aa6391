#include "verify/intact/verdict.h"

#include <algorithm>

#include "formats/base/counted.h"
#include "formats/base/error.h"

namespace quern {
namespace {

// "2 builds of org/Model at 1234", "1 of 2 builds (Q8_0)".
std::string subject(const VerdictFacts& facts) {
  const PublishedFolder& folder = facts.found.folder;
  if (folder.builds.empty()) return counted(facts.n_proved, "file") + " as listed";
  std::string text = share_of(folder.builds.size(), folder.builds.size() + facts.found.absent.size(), "build");
  if (folder.manifest && !folder.manifest->base_model.empty()) {
    const std::string& revision = folder.manifest->revision;
    return text + " of " + printable(folder.manifest->base_model) + (revision.empty() ? "" : " at " + printable(revision));
  }
  std::vector<std::string> labels;
  for (const BuildRecord& build : folder.builds) labels.push_back(build.label);
  return text + " (" + first_few(labels) + ")";
}

// A signature that was not checked with a key is what anybody may write.
std::string signature(const VerdictFacts& facts) {
  if (facts.signer.empty()) return "not signed";
  return "signed by " + facts.signer + (facts.has_key ? "" : " as it says");
}

bool is_signed(const VerifyReport& report) {
  const auto check = std::ranges::find(report.checks, "signature", &Check::name);
  return check != report.checks.end() && check->state == CheckState::kOk;
}

// The files that a check found damaged.
std::vector<std::string> damaged_files(const VerifyReport& report, const std::string& check) {
  std::vector<std::string> files;
  for (const Finding& finding : report.findings) {
    if (finding.verdict != Verdict::kDamage || finding.check != check || finding.file.empty()) continue;
    if (std::ranges::find(files, finding.file) == files.end()) files.push_back(finding.file);
  }
  return files;
}

std::string damaged(const VerifyReport& report, const Finding& first, const VerdictFacts& facts) {
  if (is_signed(report) && !facts.not_as_signed.empty())
    return "the signature is right, but not what was signed: " + first_few(facts.not_as_signed);
  if (first.check == "signature") return "it is not signed by the key that was given";
  if (first.check != "source") return "not as published: " + first_few(damaged_files(report, first.check));
  const std::vector<std::string> files = damaged_files(report, "source");
  return files.empty() ? "the checkpoint is not the one that it was made from" : "not what the checkpoint gives: " + first_few(files);
}

std::string unproved(const Finding& first, const VerdictFacts& facts) {
  if (first.kind == "no-record") {
    return "nothing says what " + printable(first.file) + " should be; fetch " + kManifestName + ", " + kSumsName + " and " +
           kAttestationName + " of its publisher into its folder";
  }
  if (first.check != "source") return to_string(first);
  return subject(facts) + ", " + signature(facts) + ", as recorded, but not all of it could be derived again";
}

}  // namespace

std::string verdict_of(const VerifyReport& report, const VerdictFacts& facts) {
  const auto first = [&](Verdict verdict) {
    const auto found = std::ranges::find(report.findings, verdict, &Finding::verdict);
    return found == report.findings.end() ? nullptr : &*found;
  };
  if (const Finding* found = first(Verdict::kDamage)) return "damaged: " + damaged(report, *found, facts);
  if (const Finding* found = first(Verdict::kUnprovable)) return "not proved: " + unproved(*found, facts);
  return "intact: " + subject(facts) + ", " + signature(facts) + (facts.source.empty() ? "" : ", " + printable(facts.source));
}

std::string share_of(size_t n, size_t n_all, std::string_view what) {
  return (n == n_all ? "" : std::to_string(n) + " of ") + counted(n_all, what);
}

std::string first_few(const std::vector<std::string>& names) {
  std::string text = printable(names.front());
  if (names.size() > 1) text += (names.size() == 2 ? " and " : ", ") + printable(names[1]);
  return names.size() > 2 ? text + " and " + std::to_string(names.size() - 2) + " more" : text;
}

}  // namespace quern
