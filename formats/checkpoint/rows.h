#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/checkpoint/transforms.h"
#include "formats/model/model_source.h"

namespace quern::checkpoint {

// The three steps of a chunk of one assembly. RawRows holds the planes of all segments, one after the other.

// Reads what the segments of raw.n_rows GGUF rows from raw.first_row need: one read for every plane of a segment, or one for each of
// its stripes; where there are several, all are announced first. drop_behind tells the system to forget the codes that were read, unless
// another tensor is made of the rows between them. Returns the bytes read.
uint64_t fetch_rows(const safetensors::Checkpoint& checkpoint, const Assembly& assembly, bool drop_behind, RawRows& raw);

// Writes n_rows x row_length floats. Throws kFormat naming the GGUF row and the stored tensor where a weight is NaN or infinite.
void decode_rows(const Assembly& assembly, const RawRows& raw, std::span<float> out);

// Whether copy_rows can write `type`: the stored type itself, MXFP4 from FP4 pairs, I32 from I64.
bool can_copy(const safetensors::Checkpoint& checkpoint, const Assembly& assembly, DType type);

// Writes the rows as `type`, for which can_copy said yes, without going through floats. Throws kFormat like decode_rows, and where an
// I64 does not fit I32.
void copy_rows(const Assembly& assembly, const RawRows& raw, DType type, std::span<std::byte> out);

// GGUF type nearest to what is stored.
DType source_type(const Assembly& assembly) noexcept;

// See ModelSource::exactness.
Exactness exactness(const safetensors::Checkpoint& checkpoint, const Assembly& assembly);

}  // namespace quern::checkpoint
