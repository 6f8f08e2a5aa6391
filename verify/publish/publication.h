#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "convert/build.h"
#include "formats/base/problems.h"
#include "formats/base/progress.h"
#include "verify/drift/chunked_text.h"
#include "verify/drift/drift_report.h"
#include "verify/publish/publish.h"

namespace quern {

// The whole of `quern publish`: a folder that is ready to be uploaded, from a model and a list of builds (docs/verify.md). A folder that
// was published already gets the builds that it does not have yet.
//
//   OpenedBuild opened = open_publication(build_options);   // look at opened.problems
//   Publication publication(options, opened);
//   publication.begin(progress);                            // and at these
//   publication.build(progress);
//   publication.finish(progress);

struct PublicationOptions {
  std::filesystem::path imatrix;               // of the builds, published beside them; empty: none
  std::vector<std::filesystem::path> recipes;  // of builds, published beside them
  std::filesystem::path calib_text;            // of imatrix and error feedback: its sum is published; empty: none
  std::filesystem::path eval_text;             // what every build lost is measured on it; empty: not measured
  int64_t eval_ctx = 512;                      // tokens per chunk
  int64_t eval_chunks = 64;                    // the first ones; 0: all
  std::filesystem::path key;                   // private, to sign with; empty: not signed
  std::string base_model, revision;            // hub id of the original, and which of its versions
  std::string license;                         // when it was given and is not the model's
  std::string quantized_by;
  std::filesystem::path chat_template;   // that stands in the builds in place of the model's; empty: the model's own
  uint64_t evaluation_memory_bytes = 0;  // for measuring; 0: default_evaluation_memory()
  bool force = false;                    // makes everything anew, whatever is published or begun in the folder
};

// Throws kUsage for what a hub would refuse in the model card, after hours of work: an id, a revision or a licence that is none.
void check_card(const PublicationOptions& options);

// open_build() for a publication: outputs of several files get folders of their own, and files of an earlier attempt are no problem, as
// Publication decides about them.
OpenedBuild open_publication(BuildOptions options);

// Before anything is made for it: throws kUsage when the folder holds what is no publication, finished or begun, unless it may be replaced.
void check_publication_folder(const std::filesystem::path& folder, bool force);

// What a publication has become.
struct PublishedBuild {
  std::string label;
  std::vector<std::string> files;
  uint64_t size_bytes = 0;
  std::optional<DriftStatistics> drift;  // when it was measured
};
struct PublicationResult {
  std::string folder;
  std::vector<PublishedBuild> builds;
  std::string drift_text;          // name of the text it was measured on; empty: not measured
  std::string key_id;              // of the signature; empty: not signed
  std::vector<std::string> files;  // of the folder, sorted
};
std::string publication_to_json(const PublicationResult& result);  // "quern.publish/1"

class Publication {
 public:
  // Reads the key. Throws what check_card throws, and kUsage when the matrix would publish the path of a text. opened outlives this.
  Publication(const PublicationOptions& options, OpenedBuild& opened);

  // Claims the folder: goes on where an earlier attempt stopped, and finds what is complete already; notes tell. Throws kUsage when the
  // folder holds something else, or builds of another checkpoint, and what load_text throws for the evaluation text. Problems of where the
  // missing builds go are returned; with any, stop here.
  std::vector<Problem> begin(Progress& progress);

  // Makes the builds that are missing, from one reading of the model; empty when there are none.
  std::optional<ConvertReport> build(Progress& progress);

  // Everything else, each step only if it is not done: sums of the checkpoint, inputs, measurements, README.md, report.html, manifest,
  // sums, signature.
  void finish(Progress& progress);

  PublicationResult result() const;  // after finish()

 private:
  void check_folder(const std::optional<PublishState>& found) const;
  void check_foreign_files(const std::vector<std::string>& present) const;
  void keep_published(Progress& progress);
  std::string imatrix_name() const { return options_.imatrix.filename().string(); }
  BuildRecord finished_record(const PlannedOutput& output) const;
  void hash_checkpoint(Progress& progress);
  void publish_inputs();
  void add_input(InputRecord input);
  void publish_file(const char* kind, const std::filesystem::path& file);
  void measure(Progress& progress);
  DriftReport known_drift(const ChunkedText& text) const;
  DriftReport in_order_of_builds(DriftReport report) const;
  ChunkedText evaluation_text() const;
  std::string drift_name() const;
  void write_readme() const;
  void write_report() const;

  const PublicationOptions options_;
  const ModelSource& source_;
  OpenedBuild& opened_;
  const Plan& plan_;
  std::optional<Ed25519Key> key_;
  PublishState state_;
  std::vector<std::optional<BuildRecord>> complete_;  // per output: of an earlier attempt
  Plan missing_;                                      // the plan of the others
  std::optional<Manifest> published_;                 // of the folder, whose builds stay
  Manifest manifest_;
};

}  // namespace quern
