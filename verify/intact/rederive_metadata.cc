#include "verify/intact/rederive_metadata.h"

#include <algorithm>
#include <map>
#include <string>

#include "convert/record/key_kinds.h"
#include "formats/base/counted.h"
#include "formats/base/error.h"
#include "formats/base/version.h"
#include "formats/gguf/metadata_text.h"

// A file whose tensors are right can still be another model: a chat template that gives orders, a rope base that spoils long texts, a token
// that is spelled otherwise. All of it follows from the checkpoint's documents, so it is derived as convert does and compared by the sums
// that the record has of every value. The record is compared with the file elsewhere (build_check.h), so both ways of planting a value are
// found: in the file alone, and by the publisher in both.

namespace quern {
namespace {

constexpr size_t kMostNamed = 8;  // keys of a build; the others are counted

bool is_template(std::string_view key) { return key.starts_with("tokenizer.chat_template"); }

class MetadataProof {
 public:
  MetadataProof(const BuildRecord& build, const Manifest* manifest, std::vector<Finding>& findings)
      : build_(build), findings_(findings), recorded_(build.keys.begin(), build.keys.end()) {
    gave_template_ =
        manifest != nullptr && std::ranges::find(manifest->inputs, kTemplateInput, &InputRecord::kind) != manifest->inputs.end();
  }

  size_t run(const Metadata& derived) {
    const ValueSums sums = build_.container->values({derived, 0, 1, build_.tensors.size(), {}});
    for (const auto& [key, sha256] : sums) {
      if (is_of_the_build(key)) continue;
      ++n_compared_;
      compare(key, sha256, *derived.find(key));
    }
    for (const auto& entry : recorded_) {
      if (derived.find(entry.first) == nullptr && !is_of_the_build(entry.first)) report(entry.first, "does not follow from the checkpoint");
    }
    if (n_reported_ > kMostNamed)
      findings_.back().message += " (and " + counted(n_reported_ - kMostNamed, "more key") + " of the metadata)";
    note_chosen();
    return n_compared_;
  }

 private:
  void compare(const std::string& key, const std::string& sha256, const MetaValue& value) {
    const auto found = recorded_.find(key);
    if (found == recorded_.end()) return report(key, "is missing, the checkpoint gives " + value_text(value));
    if (found->second != sha256) report(key, "is not what the checkpoint gives, " + value_text(value));
  }

  void report(const std::string& key, const std::string& what) {
    if (is_of_the_publisher(key)) return chosen_.push_back(key);
    if (++n_reported_ > kMostNamed) return;
    Finding finding = damage("source", is_template(key) ? "other-template" : "other-metadata", build_.files.front().name,
                             "metadata key '" + printable(key) + "' " + what);
    if (is_template(key) && gave_template_) {
      finding.verdict = Verdict::kUnprovable;
      finding.message += "; the manifest says that the publisher gave another";
    } else if (build_.quern_version != kVersion) {
      finding.verdict = Verdict::kUnprovable;
      finding.message += "; quern " + printable(build_.quern_version) + " made it, this is " + kVersion;
    }
    findings_.push_back(std::move(finding));
  }

  void note_chosen() {
    if (chosen_.empty()) return;
    Finding finding = damage("source", "chosen-metadata", build_.files.front().name,
                             first_of(chosen_, kMostNamed) + (chosen_.size() == 1 ? " is" : " are") +
                                 " not what the checkpoint gives; publishers may choose names, licence, origin and tags");
    finding.verdict = Verdict::kNote;
    findings_.push_back(std::move(finding));
  }

  const BuildRecord& build_;
  std::vector<Finding>& findings_;
  const std::map<std::string, std::string> recorded_;
  bool gave_template_ = false;
  std::vector<std::string> chosen_;
  size_t n_compared_ = 0, n_reported_ = 0;
};

}  // namespace

size_t rederive_metadata(const BuildRecord& build, const ModelSource& source, const Manifest* manifest, std::vector<Finding>& findings) {
  return MetadataProof(build, manifest, findings).run(source.metadata());
}

}  // namespace quern
