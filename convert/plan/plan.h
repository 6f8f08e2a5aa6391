#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "formats/containers/container.h"
#include "formats/gguf/metadata.h"
#include "formats/statistics/imatrix.h"
#include "formats/statistics/statistics_record.h"
#include "formats/types/dtype.h"
#include "formats/types/tensor.h"
#include "quantize/plain/encode.h"

namespace quern {

// The plan of a conversion: every output file with its metadata, every tensor with its type, place and size, and the chunks of
// rows in which the work is done. Making it reads no tensor data and finds most mistakes; everything that it fixes is final.
// It is a value: saved as JSON (docs/formats/plan.md), its parts can run in other processes and on other machines.

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

// One of the arrays that the output's container makes of a tensor (formats/containers/container.h).
struct PlacedPlane {
  uint64_t file_offset = 0;  // from the start of the tensor's file
  uint64_t size_bytes = 0;
};

// One tensor in one output.
struct Placement {
  DType type = DType::F32;
  bool copied = false;  // the stored bytes become `type` without going through floats
  uint32_t file = 0;
  uint64_t size_bytes = 0;          // of all its blocks, and so of all planes
  std::vector<PlacedPlane> planes;  // in the order of the file
};

struct PlannedFile {
  std::string name;
  uint64_t size_bytes = 0;
  uint64_t data_offset = 0;
  size_t first_tensor = 0;
  size_t n_tensors = 0;
};

struct PlannedOutput {
  const Container* container = &default_container();
  std::string mix;        // name of the mix or recipe
  bool lossless = false;  // every tensor is proved exact while it is written
  std::string label;      // "Q4_K_M", "lossless-MXFP4": what tells the outputs of a model apart
  std::string stem;       // file name without shard number and extension
  std::string folder;     // in Plan::folder, where the files are; empty: Plan::folder itself
  Metadata metadata;      // keys that are added to Plan::metadata for this output
  std::vector<PlannedFile> files;
  std::vector<SideFile> side_files;
  std::vector<Placement> tensors;  // one per planned tensor
  uint64_t tensor_bytes = 0;       // without padding
};

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
  std::vector<std::string> warnings;  // what was asked for and cannot be had
  uint64_t memory_bytes = 0;          // the budget
  uint64_t base_bytes = 0;            // resident memory apart from chunks
  uint64_t chunk_bytes = 0;           // most memory that one chunk needs
  uint64_t beside_bytes = 0;          // of a model that runs beside the build, outside the budget
  bool force = false;
  bool lists = true;  // write SHA256SUMS and the lists of tensors beside the outputs

  // Of this process alone, not part of the saved plan.
  bool one_by_one = false;
  uint64_t sync_bytes = kSyncBytes;

  uint64_t source_bytes() const;
  uint64_t output_bytes() const;
  int64_t n_weights() const;
};

// The plans that are run one after the other: this one, or with one_by_one a plan for each of its outputs.
std::vector<Plan> runs_of(const Plan& plan);

// Name of a file of an output, relative to Plan::folder.
std::string relative_name(const PlannedOutput& output, size_t file);

// All files of an output: those with tensors in order, then side files.
struct OutputFileInfo {
  std::string name;  // relative to Plan::folder
  uint64_t size_bytes = 0;
};
std::vector<OutputFileInfo> files_of(const PlannedOutput& output);

}  // namespace quern
