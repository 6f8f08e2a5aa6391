#include "formats/checkpoint/rows.h"

#include <algorithm>
#include <bit>

#include "formats/base/error.h"

// A chunk of rows of a GGUF tensor is a list of segments, runs of stored rows inside one slice of one stored tensor (transforms.h). For
// each of them the planes of its encoding are read, and the encoding makes floats or blocks of its rows, which go where the transform
// wants them. What an encoding is does not matter here, only how many rows it likes to get at once.

namespace quern::checkpoint {
namespace {

using encodings::BadRow;
using encodings::EncodedTensor;
using encodings::kNonfinite;
using encodings::Plane;
using encodings::Tile;

// Calls body(segment, tile) for all segments of `raw`, after checking that it holds them.
template <typename Body>
void for_each_segment(const Assembly& assembly, const RawRows& raw, Body body) {
  uint64_t at = 0;
  for (const Segment& segment : segments(assembly, raw.first_row, raw.n_rows)) {
    Tile tile{segment.first, segment.n, {}};
    for (size_t p = 0; p < segment.part->n_planes; ++p) {
      tile.planes[p] = raw.bytes.data() + at;
      at += segment.part->planes()[p].bytes_of(segment.first, segment.n);
    }
    QUERN_CHECK(at <= raw.bytes.size());
    body(segment, tile);
  }
}

// `row` is that of the slice.
[[noreturn]] void throw_bad_row(const Assembly& assembly, const Segment& segment, int64_t out_row, int64_t row, const char* what) {
  throw Error(ErrorKind::kFormat, "row " + std::to_string(out_row / assembly.moved_per_row) + " has " + what + " (stored in '" +
                                      segment.part->codes().tensor->name + "', row " +
                                      std::to_string(segment.slice * segment.part->rows + row) + ")");
}

// Without an early exit, so that it vectorises: almost every row passes.
bool all_finite(std::span<const float> values) noexcept {
  uint32_t n_bad = 0;
  for (const float value : values) n_bad += (std::bit_cast<uint32_t>(value) & 0x7F800000U) == 0x7F800000U ? 1U : 0U;
  return n_bad == 0;
}

// Rows that go to the encoding at once: few enough for the first-level cache, whole tiles where the file holds the transposed matrix,
// and one by one where the transform takes them apart.
int64_t rows_at_once(const Assembly& assembly, const EncodedTensor& part) noexcept {
  if (interleaves(assembly.transform) || assembly.transform == Transform::kPermuteHeads) return 1;
  if (part.codes().n_stripes > 1) return part.tile_rows;
  constexpr int64_t kWeights = 4096;
  return std::max<int64_t>(1, kWeights / part.cols);
}

// Calls body(out_row, row, n) for runs of rows of a segment that are consecutive in the output and, from `row` of the slice on, in
// the file.
template <typename Body>
void for_each_run(const Assembly& assembly, const Segment& segment, Body body) {
  const int64_t step = rows_at_once(assembly, *segment.part);
  const int64_t end = segment.out_first + segment.out_n;
  for (int64_t out_row = segment.out_first; out_row < end; out_row += step) {
    body(out_row, segment.first + row_in_segment(assembly, segment, out_row), std::min(step, end - out_row));
  }
}

// Calls body(plane, first byte, number of bytes) for every range of bytes that a segment needs, in the order in which RawRows has them.
template <typename Body>
void for_each_range(const Segment& segment, Body body) {
  for (const Plane& plane : segment.part->planes()) {
    const int64_t first_stripe = plane.shared ? 0 : segment.slice * plane.n_stripes;
    const uint64_t stripe_bytes = static_cast<uint64_t>(plane.units_of(segment.first, segment.n)) * plane.unit_bytes;
    for (int64_t stripe = first_stripe; stripe < first_stripe + plane.n_stripes; ++stripe) {
      body(plane, static_cast<uint64_t>(stripe * plane.n_units + plane.first_unit(segment.first)) * plane.unit_bytes, stripe_bytes);
    }
  }
}

// kSplitKeyB: stored rows are the key's dimensions of one head and columns its ranks; the output has one row per rank.
void decode_transposed(const Assembly& assembly, const RawRows& raw, std::span<float> out) {
  const int64_t rank = assembly.slice_rows;
  std::vector<float> head(static_cast<size_t>(assembly.nope_dim * rank));
  for_each_segment(assembly, raw, [&](const Segment& segment, const Tile& tile) {
    for (int64_t row = 0; row < segment.n; ++row) {
      const std::span<float> decoded = std::span(head).subspan(static_cast<size_t>(row * rank), static_cast<size_t>(rank));
      segment.part->encoding->decode(*segment.part, tile, segment.first + row, 1, decoded.data(), rank);
      if (!all_finite(decoded)) throw_bad_row(assembly, segment, segment.out_first, segment.first + row, kNonfinite);
    }
    for (int64_t i = 0; i < segment.out_n; ++i) {
      const int64_t out_row = segment.out_first + i;
      float* to = out.data() + (out_row - raw.first_row) * assembly.cols;
      for (int64_t n = 0; n < assembly.nope_dim; ++n) to[n] = head[static_cast<size_t>(n * rank + out_row % rank)];
    }
  });
}

}  // namespace

uint64_t fetch_rows(const safetensors::Checkpoint& checkpoint, const Assembly& assembly, bool drop_behind, RawRows& raw) {
  const std::vector<Segment> list = segments(assembly, raw.first_row, raw.n_rows);
  uint64_t size_bytes = 0;
  for (const Segment& segment : list) size_bytes += segment.size_bytes();
  raw.bytes.resize(size_bytes);

  // Several ranges are announced, so that the others are on their way while the first is read.
  for (const Segment& segment : list) {
    if (list.size() == 1 && segment.part->codes().n_stripes == 1) break;
    for_each_range(segment, [&](const Plane& plane, uint64_t at, uint64_t n) { checkpoint.read_ahead(*plane.tensor, at, n); });
  }
  std::byte* to = raw.bytes.data();
  for (const Segment& segment : list) {
    for_each_range(segment, [&](const Plane& plane, uint64_t at, uint64_t n) {
      checkpoint.read(*plane.tensor, at, {to, n});
      to += n;
    });
    const Plane& codes = segment.part->codes();
    if (!drop_behind || interleaves(assembly.transform) || codes.n_stripes > 1) continue;
    const auto first = static_cast<uint64_t>(segment.slice * codes.n_units + codes.first_unit(segment.first)) * codes.unit_bytes;
    checkpoint.files()[codes.tensor->file_index].done_with(codes.tensor->file_offset + first, codes.bytes_of(segment.first, segment.n));
  }
  return size_bytes;
}

void decode_rows(const Assembly& assembly, const RawRows& raw, std::span<float> out) {
  const int64_t first = raw.first_row * assembly.moved_per_row;
  QUERN_CHECK(static_cast<int64_t>(out.size()) == raw.n_rows * assembly.moved_per_row * assembly.cols);
  if (assembly.transform == Transform::kGenerated) {
    std::ranges::copy(std::span(assembly.generated).subspan(static_cast<size_t>(first * assembly.cols), out.size()), out.begin());
    return;
  }
  if (assembly.transform == Transform::kSplitKeyB) return decode_transposed(assembly, raw, out);
  for_each_segment(assembly, raw, [&](const Segment& segment, const Tile& tile) {
    const EncodedTensor& part = *segment.part;
    for_each_run(assembly, segment, [&](int64_t out_row, int64_t row, int64_t n) {
      float* to = out.data() + (out_row - first) * assembly.cols + segment.out_col;
      part.encoding->decode(part, tile, row, n, to, assembly.cols);
      for (int64_t i = 0; i < n; ++i) {
        const std::span<const float> decoded(to + i * assembly.cols, static_cast<size_t>(part.cols));
        if (!all_finite(decoded)) throw_bad_row(assembly, segment, out_row + i, row + i, kNonfinite);
      }
    });
  });
}

bool can_copy(const safetensors::Checkpoint& checkpoint, const Assembly& assembly, DType type) {
  if (assembly.transform == Transform::kGenerated) return type == DType::F32;
  if (assembly.transform == Transform::kSplitKeyB) return false;
  return std::ranges::all_of(assembly.parts, [&](const EncodedTensor& part) {
    return part.encoding->source_type(part) == type && part.encoding->can_copy(checkpoint, part);
  });
}

void copy_rows(const Assembly& assembly, const RawRows& raw, DType type, std::span<std::byte> out) {
  if (assembly.transform == Transform::kGenerated) {
    QUERN_CHECK(type == DType::F32 && out.size() == assembly.generated.size() * sizeof(float));
    return static_cast<void>(std::ranges::copy(std::as_bytes(std::span(assembly.generated)), out.begin()));
  }
  QUERN_CHECK(assembly.transform != Transform::kSplitKeyB);
  const int64_t first = raw.first_row * assembly.moved_per_row;
  const uint64_t row_bytes = row_size_bytes(type, assembly.cols);
  QUERN_CHECK(out.size() == static_cast<uint64_t>(raw.n_rows * assembly.moved_per_row) * row_bytes);
  for_each_segment(assembly, raw, [&](const Segment& segment, const Tile& tile) {
    const EncodedTensor& part = *segment.part;
    QUERN_CHECK(part.encoding->copy != nullptr && part.encoding->source_type(part) == type);
    std::byte* const column = out.data() + row_size_bytes(type, segment.out_col);
    for_each_run(assembly, segment, [&](int64_t out_row, int64_t row, int64_t n) {
      const BadRow bad = part.encoding->copy(part, tile, row, n, column + static_cast<uint64_t>(out_row - first) * row_bytes, row_bytes);
      if (bad.what != nullptr) throw_bad_row(assembly, segment, out_row + bad.row - row, bad.row, bad.what);
    });
  });
}

DType source_type(const Assembly& assembly) noexcept {
  const auto type_of = [](const EncodedTensor& part) { return part.encoding->source_type(part); };
  if (assembly.parts.empty()) return DType::F32;
  const DType type = type_of(assembly.parts[0]);
  return std::ranges::all_of(assembly.parts, [&](const EncodedTensor& part) { return type_of(part) == type; }) ? type : DType::F32;
}

Exactness exactness(const safetensors::Checkpoint& checkpoint, const Assembly& assembly) {
  for (const EncodedTensor& part : assembly.parts) {
    Exactness exact = part.encoding->exactness(checkpoint, part);
    if (!exact.type) return exact;
  }
  // Parts of different types meet in F32, which holds every value of BF16, F16 and FP4.
  return {source_type(assembly), {}};
}

}  // namespace quern::checkpoint
