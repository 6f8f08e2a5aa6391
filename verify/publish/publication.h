#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "convert/build.h"
#include "formats/base/problems.h"
#include "formats/base/progress.h"
#include "verify/drift/drift_report.h"
#include "verify/publish/publish.h"

namespace quern {

// The whole of `quern publish`: a folder that is ready to be uploaded, from a model and a list of builds (docs/verify.md).
//
//   OpenedBuild opened = open_publication(build_options);   // look at opened.problems
//   Publication publication(options, opened);
//   publication.begin(progress);                            // and at these
//   publication.build(progress);
//   publication.finish(progress);

struct PublicationOptions {
  std::filesystem::path imatrix;     // of the builds, published beside them; empty: none
  std::filesystem::path calib_text;  // of imatrix and error feedback: its sum is published; empty: none
  std::filesystem::path eval_text;   // what every build lost is measured on it; empty: not measured
  std::filesystem::path key;         // private, to sign with; empty: not signed
  std::string base_model, revision;  // hub id of the original, and which of its versions
  std::string license;               // when it was given and is not the model's
  std::string quantized_by;
  uint64_t evaluation_memory_bytes = 0;  // for measuring; 0: default_evaluation_memory()
  bool force = false;                    // replaces what is published in the folder, or begun with other options
};

// Throws kUsage for what a hub would refuse in the model card, after hours of work: an id, a revision or a licence that is none.
void check_card(const PublicationOptions& options);

// open_build() for a publication: outputs of several files get folders of their own, and files of an earlier attempt are no problem, as
// Publication decides about them.
OpenedBuild open_publication(BuildOptions options);

class Publication {
 public:
  // Reads the key. Throws what check_card throws, and kUsage when the matrix would publish the path of a text. opened outlives this.
  Publication(const PublicationOptions& options, OpenedBuild& opened);

  // Claims the folder: goes on where an earlier attempt of the same publication stopped, and finds what is complete already; notes tell.
  // Throws kUsage when the folder holds something else, and what load_text throws for the evaluation text. Problems of where the missing
  // builds go are returned; with any, stop here.
  std::vector<Problem> begin(Progress& progress);

  // Makes the builds that are missing, from one reading of the model; empty when there are none.
  std::optional<ConvertReport> build(Progress& progress);

  // Everything else, each step only if it is not done: sums of the checkpoint, inputs, measurements, README.md, report.html, manifest,
  // sums, signature.
  void finish(Progress& progress);

 private:
  void check_foreign_files(const std::vector<std::string>& present) const;
  std::string imatrix_name() const { return options_.imatrix.filename().string(); }
  BuildRecord finished_record(const PlannedOutput& output) const;
  void hash_checkpoint(Progress& progress);
  void publish_inputs();
  void measure(Progress& progress);
  DriftReport measured(Progress& progress) const;
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
  Manifest manifest_;
};

}  // namespace quern
