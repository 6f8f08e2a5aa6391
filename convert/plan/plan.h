#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/base/error.h"
#include "formats/gguf/metadata.h"
#include "formats/model/model_source.h"
#include "formats/statistics/importance.h"
#include "formats/statistics/statistics_record.h"
#include "formats/types/dtype.h"
#include "formats/types/tensor.h"
#include "quantize/plain/encode.h"
#include "recipes/recipe.h"

namespace quern {

class FeedbackSource;

// The plan of a conversion: every output file with its metadata, every tensor with its type, place and size, and the chunks of
// rows in which the work is done. Making it reads no tensor data and finds most mistakes; everything that it fixes is final.
// It is a value: saved as JSON (docs/formats/plan.md), its parts can run in other processes and on other machines.

struct PlanOptions {
  std::filesystem::path output;  // folder of the outputs; with single_file the output itself
  bool single_file = false;
  std::vector<std::string> types;          // names of mixes
  std::vector<Recipe> recipes;             // outputs beside those of `types`
  std::vector<std::string> tensor_types;   // "REGEX=TYPE"; the first that matches a tensor name wins
  std::optional<std::string> tensors;      // REGEX: only these tensors, in a file that says so
  uint64_t split_bytes = 0;                // most tensor bytes per file; 0: one file
  bool metadata_shard = false;             // when split, the first file holds no tensors
  bool folder_per_type = false;            // split outputs go into a folder of their own, named by the type
  uint64_t memory_bytes = 0;               // bound of the resident memory; 0: default_memory_budget()
  bool force = false;                      // existing files may be replaced
  bool mtp = false;                        // the model was opened with ModelOptions::mtp
  const Importance* importance = nullptr;  // of this model; nullptr: none
  std::filesystem::path imatrix;           // where it was read from
  FeedbackSource* feedback = nullptr;      // for error feedback, of this model; nullptr: none
  std::filesystem::path statistics;        // the folder it was read from
  std::optional<Effort> effort;            // of the encoders; empty: what the recipes say, else the default
  bool one_by_one = false;                 // outputs are made in runs of their own
  uint64_t sync_bytes = 0;                 // written between two records of the journal; 0: kSyncBytes
};

// Data between two records of the journal: little enough that a crash loses seconds, much enough that waiting for the disk does not show.
constexpr uint64_t kSyncBytes = uint64_t{256} << 20;

// A file that the plan was made from. The fingerprint covers its first and last 64 KiB, headers in practice.
struct PlannedSource {
  std::string name;
  uint64_t size_bytes = 0;
  int64_t mtime_ns = 0;
  std::string fingerprint;
};

struct PlannedTensor {
  std::string name;
  Shape shape;
  size_t source_index = 0;  // in ModelSource::tensors()
  int64_t n_slices = 1;
  uint64_t source_bytes = 0;  // stored bytes that are read for it
  int64_t chunk_rows = 1;     // rows per chunk; the last one may have fewer
  bool integer = false;       // a table that is copied and never becomes floats
};

// One tensor in one output.
struct Placement {
  DType type = DType::F32;
  bool copied = false;  // the stored bytes become `type` without going through floats
  uint32_t file = 0;
  uint64_t file_offset = 0;  // from the start of its file
  uint64_t size_bytes = 0;
};

struct PlannedFile {
  std::string name;
  uint64_t size_bytes = 0;
  uint64_t data_offset = 0;
  size_t first_tensor = 0;
  size_t n_tensors = 0;
};

struct PlannedOutput {
  std::string mix;        // name of the mix or recipe
  bool lossless = false;  // every tensor is proved exact while it is written
  std::string label;      // "Q4_K_M", "lossless-MXFP4": what tells the outputs of a model apart
  std::string stem;       // file name without shard number and ".gguf"
  std::string folder;     // in Plan::folder, where the files are; empty: Plan::folder itself
  Metadata metadata;      // keys that are added to Plan::metadata for this output
  std::vector<PlannedFile> files;
  std::vector<Placement> tensors;  // one per planned tensor
  uint64_t tensor_bytes = 0;       // without padding
};

struct Plan;
// The plans that are run one after the other: this one, or with one_by_one a plan for each of its outputs.
std::vector<Plan> runs_of(const Plan& plan);

// Name of a file of an output, relative to Plan::folder.
std::string relative_name(const PlannedOutput& output, size_t file);

struct Plan {
  std::string quern_version;
  std::filesystem::path model;
  bool mtp = false;
  std::filesystem::path folder;  // of the outputs
  std::vector<PlannedSource> sources;
  Metadata metadata;  // shared by the outputs
  std::vector<PlannedTensor> tensors;
  std::vector<PlannedOutput> outputs;
  Effort effort = Effort::kDefault;
  std::optional<ImatrixRecord> imatrix;        // what the encoders go by; Calibration must be of this file
  std::filesystem::path imatrix_path;          // where it was; never written to outputs
  std::optional<StatisticsRecord> statistics;  // for error feedback; Calibration must be of this folder
  std::filesystem::path statistics_path;       // where it was; never written to outputs
  std::vector<std::string> notes;
  uint64_t memory_bytes = 0;  // the budget
  uint64_t base_bytes = 0;    // resident memory apart from chunks
  uint64_t chunk_bytes = 0;   // most memory that one chunk needs
  bool force = false;
  bool lists = true;  // write SHA256SUMS and the lists of tensors beside the outputs

  // Of this process alone, not part of the saved plan.
  bool one_by_one = false;
  uint64_t sync_bytes = kSyncBytes;

  uint64_t source_bytes() const;
  uint64_t output_bytes() const;
  int64_t n_weights() const;
};

struct Problem {
  ErrorKind kind;
  std::string message;
};

// All that is wrong; empty when the plan can run. Problems of the options alone are found even when there is no source.
std::vector<Problem> check_options(const PlanOptions& options);

// `model` is the path that was opened. Problems are appended to `problems`; with any, the plan must not be run.
Plan make_plan(const ModelSource& source, const std::filesystem::path& model, const PlanOptions& options, std::vector<Problem>& problems);

// The outputs alone, with exact names, types and sizes of files: for a source that may have no weights (open_outline). Where they would be
// written is not looked at.
Plan plan_outputs(const ModelSource& source, const std::filesystem::path& model, const PlanOptions& options,
                  std::vector<Problem>& problems);

// Whether the outputs can be created: files in the way, too little space. Part of make_plan; for a plan that was loaded.
std::vector<Problem> check_destination(const Plan& plan);

// How many chunks may be in work at once under the plan's budget: at least 1, at most what keeps n_threads busy.
int chunks_in_flight(const Plan& plan, int n_threads);
// Peak resident memory that follows from it.
uint64_t predicted_memory(const Plan& plan, int n_threads);

// What one file of an output says about itself and, when it is the first, about the model.
Metadata file_metadata(const Plan& plan, const PlannedOutput& output, size_t file);
// The header of one file of an output, ready to be written at offset 0.
std::vector<std::byte> file_header(const Plan& plan, const PlannedOutput& output, size_t file);

// SHA-256 over everything that decides the bytes of the outputs and the division into chunks; ties journals and parts to a plan.
std::string plan_id(const Plan& plan);

std::string plan_to_json(const Plan& plan);
// Reads hostile text. Throws kFormat unless everything fits together: sizes and offsets are those that planning gives to these
// tensors, types and metadata, and names are plain.
Plan plan_from_json(std::string_view text);
Plan read_plan(const std::filesystem::path& file);

// Throws kFormat when the source is not what the plan was made from: a file was added, removed or changed, or a tensor differs; and
// kUnsupported when the plan has a tensor in a type that cannot be written.
void check_source(const Plan& plan, const ModelSource& source);

}  // namespace quern
