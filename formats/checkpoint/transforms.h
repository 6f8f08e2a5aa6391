#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "formats/arch/descriptor.h"
#include "formats/encodings/registry.h"

namespace quern::checkpoint {

// One logical tensor as a rearrangement of stored rows.
//
// Every transform of the descriptors moves whole rows, except the transposed key half of kv_b. Vectors ([n] biases) and stacks of
// vectors ([E, 2F] biases) join in by counting each element as a row of one column: a "moved row" is a GGUF row, or one element of
// it (moved_per_row = its length). Moved rows count over all slices. What a chunk of rows needs is then a list of segments, each a
// contiguous run of stored rows inside one slice, and a formula inside the segment. So a chunk costs one read per segment,
// and its memory is the rows themselves, rounded to whole heads where heads are shuffled or transposed.
struct Assembly {
  Transform transform = Transform::kNone;
  std::vector<encodings::EncodedTensor> parts;  // one; one per slice; two for kConcatColumns; none for kGenerated
  int64_t slice_rows = 1;                       // moved rows per slice; a slice is an expert, or a head of kv_b
  int64_t n_moved_rows = 1;
  int64_t cols = 1;  // weights per moved row
  int64_t moved_per_row = 1;
  int64_t head_rows = 1;         // stored rows per head: kPermuteHeads, kSplitKeyB, kSplitValueB
  int64_t nope_dim = 0;          // kSplitKeyB, kSplitValueB: the first rows of a head are the key's
  std::vector<float> generated;  // kGenerated
};

// Whether every second stored row is another tensor's.
bool interleaves(Transform transform) noexcept;

// Names of the weights that a rule needs, in slice or column order. Empty for kGenerated.
std::vector<std::string> stored_names(const TensorRule& rule);

// Finds and checks all stored tensors of a rule. Everything that is wrong goes to `problems`, and then there is no result.
std::optional<Assembly> assemble(const safetensors::Checkpoint& checkpoint, const ModelConfig& config, const TensorRule& rule,
                                 Problems& problems);

// A run of stored rows that a chunk needs, and the moved rows that come out of it.
struct Segment {
  const encodings::EncodedTensor* part = nullptr;
  int64_t slice = 0;  // of the part
  int64_t first = 0;  // stored rows [first, first + n) of that slice
  int64_t n = 0;
  int64_t out_first = 0;  // moved rows [out_first, out_first + out_n)
  int64_t out_n = 0;
  int64_t out_col = 0;  // columns [out_col, out_col + part->cols) of them

  uint64_t size_bytes() const noexcept;  // of all planes
};

// Segments of the GGUF rows [first_row, first_row + n_rows), in order of output.
std::vector<Segment> segments(const Assembly& assembly, int64_t first_row, int64_t n_rows);

// The stored row, counted from segment.first, that moved row `out_row` of the segment is. Not for kSplitKeyB.
int64_t row_in_segment(const Assembly& assembly, const Segment& segment, int64_t out_row) noexcept;

// Chunks that start and end at multiples of this many GGUF rows read every stored byte once, except scales that two slices, two heads
// or all rows share.
int64_t row_alignment(const Assembly& assembly) noexcept;

// Stored bytes that belong to the tensor, in all planes.
uint64_t source_bytes(const Assembly& assembly);

// Upper bound of what the segments of any n_rows GGUF rows hold.
uint64_t raw_bytes(const Assembly& assembly, int64_t n_rows);

}  // namespace quern::checkpoint
