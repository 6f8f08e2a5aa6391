#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/base/file.h"
#include "formats/gguf/metadata.h"
#include "formats/types/tensor.h"

namespace quern {

// A model as GGUF sees it, whatever it is stored as: metadata with GGUF keys, and logical tensors with GGUF names, GGUF row order
// and GGUF stacking. A checkpoint folder becomes one through its architecture's descriptor (formats/arch) and the transforms of
// formats/checkpoint; a GGUF file is one already. convert, quantize, the runtime and verify see only this.
// clang-format off
// What a tensor is to the model; decides its type in mixes and recipes.
enum class Role {
  kTokenEmbedding, kOutput, kNorm, kBias, kAttention, kRouter, kDenseFfn, kRoutedExpert, kSharedExpert, kIndexer, kCompressor,
  kHyperConnection, kMtp, kOther
};
// clang-format on
// Which type a tensor may be stored as.
enum class Keep {
  kMix,     // the mix decides
  kF32,     // always F32: norms, biases, sinks, hyper-connections ...
  kSource,  // the float type of the checkpoint (BF16 stays BF16, everything else F32 or F16 as stored): router, compressor ...
  kInteger  // I32 tables
};

struct LogicalTensor {
  std::string name;  // "blk.3.ffn_down_exps.weight"
  Shape shape;       // outermost first; row_length() is GGUF's ne[0]
  Role role = Role::kOther;
  Keep keep = Keep::kMix;
  int64_t layer = -1;              // -1 outside blocks
  int64_t n_slices = 1;            // stacked experts: shape[0], else 1
  int64_t row_alignment = 1;       // chunks that start and end at multiples of this read every source byte once
  DType source_type = DType::F32;  // GGUF type nearest to what is stored: MXFP4 for FP4, BF16 for FP8, BF16, F16, F32, I32, or a block type
  uint64_t source_bytes = 0;       // stored bytes that belong to it, scales included
  std::vector<std::string> source_names;  // stored tensors with its codes, slices in order; scales have names of their own
};

// How exactly a tensor can be kept. Asking may read scales or exponents (never the codes of weights).
struct Exactness {
  std::optional<DType> type;  // smallest GGUF type that holds every value; empty if there is none
  std::string reason;         // why not, with the bound on the relative error of BF16
};

// Raw stored bytes of some rows of one tensor: everything that decoding them needs. Reusable buffer; the layout is private to the source
// that filled it, so that an encoding may have any number of planes (codes, scales, zero points ...).
struct RawRows {
  size_t tensor = 0;
  int64_t first_row = 0;
  int64_t n_rows = 0;
  std::vector<std::byte> bytes;
};

struct SourceFile {
  std::filesystem::path path;  // as opened; never written to outputs
  std::string name;            // relative to the folder
  uint64_t size_bytes = 0;
  int64_t mtime_ns = 0;
};

class ModelSource {
 public:
  virtual ~ModelSource() = default;

  virtual const Metadata& metadata() const noexcept = 0;
  virtual std::span<const LogicalTensor> tensors() const noexcept = 0;  // in the order that files are written
  virtual std::span<const SourceFile> files() const noexcept = 0;
  virtual std::span<const std::string> notes() const noexcept = 0;  // what was left out or assumed, one line each

  virtual Exactness exactness(size_t tensor) const = 0;

  // The three steps of a chunk. fetch is the only one that does I/O; decode and copy are pure. All are thread-safe.
  // Rows count over the flattened outer dimensions: row r of slice e of a stacked tensor is row e * shape[1] + r.
  // raw_bytes: upper bound of the buffer that fetch fills for n_rows rows.
  virtual uint64_t raw_bytes(size_t tensor, int64_t n_rows) const = 0;
  virtual void fetch(size_t tensor, int64_t first_row, int64_t n_rows, RawRows& raw) const = 0;
  // out: n_rows x row_length floats, row-major. Throws kFormat naming tensor and row on a NaN code (FP8 0x7F, e8m0 255).
  virtual void decode(const RawRows& raw, std::span<float> out) const = 0;
  // True when the stored bytes can become `type` without going through floats (same type, FP4 to MXFP4, I64 to I32). Asking may read
  // scales.
  virtual bool can_copy(size_t tensor, DType type) const = 0;
  virtual void copy(const RawRows& raw, DType type, std::span<std::byte> out) const = 0;

  virtual uint64_t bytes_read() const noexcept = 0;  // tensor bytes handed out by fetch so far
};

// What a checkpoint does not say itself.
struct ModelOptions {
  std::optional<std::string> name;  // general.name; default: README front matter or folder name
  std::optional<std::filesystem::path> chat_template;
  std::optional<std::string> license;
  std::vector<std::string> base_models;  // hub ids
  bool mtp = false;                      // the MTP (draft) file instead of the main model
};

// Opens a checkpoint folder, a GGUF file, or the first shard of a split GGUF. Reads headers only.
// Errors list every problem found: unclaimed tensors, missing tensors, wrong shapes, unknown encodings.
std::unique_ptr<ModelSource> open_model(const std::filesystem::path& path, const ModelOptions& options = {});

}  // namespace quern
