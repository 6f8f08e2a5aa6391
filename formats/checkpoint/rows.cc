#include "formats/checkpoint/rows.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "formats/base/bytes.h"
#include "formats/types/decode.h"

namespace quern::checkpoint {
namespace {

// Largest scale byte with which every e2m1 code is a finite float: 6 * 2^(252 - 127).
constexpr uint8_t kMaxFp4Scale = 252;

// The weights and scales of a segment inside a RawRows.
struct SegmentBytes {
  const std::byte* weights;
  const std::byte* scales;

  const std::byte* weight_row(const Segment& segment, int64_t row) const {
    return weights + static_cast<uint64_t>(row) * segment.part->row_bytes;
  }
  const std::byte* scale_row(const Segment& segment, int64_t row) const {
    const int64_t block_row = (segment.first + row) / segment.part->block_rows - segment.first_block_row();
    return scales + static_cast<uint64_t>(block_row) * segment.part->scale_row_bytes;
  }
};

// Calls body(segment, bytes) for all segments of `raw`, after checking that it holds them.
template <typename Body>
void for_each_segment(const Assembly& assembly, const RawRows& raw, Body body) {
  uint64_t weight_bytes = 0;
  uint64_t scale_bytes = 0;
  for (const Segment& segment : segments(assembly, raw.first_row, raw.n_rows)) {
    const SegmentBytes bytes{raw.weights.data() + weight_bytes, raw.scales.data() + scale_bytes};
    weight_bytes += segment.weight_bytes();
    scale_bytes += segment.scale_bytes();
    QUERN_CHECK(weight_bytes <= raw.weights.size() && scale_bytes <= raw.scales.size());
    body(segment, bytes);
  }
}

[[noreturn]] void throw_bad_row(const Assembly& assembly, const Segment& segment, int64_t out_row, int64_t stored_row, const char* what) {
  throw Error(ErrorKind::kFormat, "row " + std::to_string(out_row / assembly.moved_per_row) + " has " + what + " (stored in '" +
                                      segment.part->weights->name + "', row " +
                                      std::to_string(segment.slice * segment.part->rows + segment.first + stored_row) + ")");
}

constexpr const char* kNonfinite = "a NaN or infinite weight";

// Without an early exit, so that it vectorises: almost every row passes.
bool all_finite(std::span<const float> values) noexcept {
  uint32_t n_bad = 0;
  for (const float value : values) n_bad += (std::bit_cast<uint32_t>(value) & 0x7F800000U) == 0x7F800000U ? 1U : 0U;
  return n_bad == 0;
}

// kSplitKeyB: stored rows are the key's dimensions of one head and columns its ranks; the output has one row per rank.
void decode_transposed(const Assembly& assembly, const RawRows& raw, std::span<float> out) {
  const int64_t first_row = raw.first_row;
  std::vector<float> head(static_cast<size_t>(assembly.nope_dim * assembly.slice_rows));
  for_each_segment(assembly, raw, [&](const Segment& segment, const SegmentBytes& bytes) {
    const int64_t rank = assembly.slice_rows;
    for (int64_t row = 0; row < segment.n; ++row) {
      const std::span<float> decoded = std::span(head).subspan(static_cast<size_t>(row * rank), static_cast<size_t>(rank));
      decode_row(*segment.part, bytes.weight_row(segment, row), bytes.scale_row(segment, row), decoded);
      if (!all_finite(decoded)) throw_bad_row(assembly, segment, segment.out_first, row, kNonfinite);
    }
    for (int64_t i = 0; i < segment.out_n; ++i) {
      const int64_t out_row = segment.out_first + i;
      float* to = out.data() + (out_row - first_row) * assembly.cols;
      for (int64_t n = 0; n < assembly.nope_dim; ++n) to[n] = head[static_cast<size_t>(n * rank + out_row % rank)];
    }
  });
}

void repack_mxfp4_block(const std::byte* pairs, std::byte scale, std::byte* block) noexcept {
  const auto* s = reinterpret_cast<const uint8_t*>(pairs);
  auto* qs = reinterpret_cast<uint8_t*>(block + 1);
  block[0] = scale;
  // Weights 0..15 are in s[0..7] and go to the low nibbles of qs, 16..31 are in s[8..15] and go to the high ones.
  for (size_t k = 0; k < 8; ++k) {
    qs[2 * k] = static_cast<uint8_t>((s[k] & 0x0F) | (s[k + 8] << 4));
    qs[2 * k + 1] = static_cast<uint8_t>((s[k] >> 4) | (s[k + 8] & 0xF0));
  }
}

bool copy_fp4_row(const EncodedTensor& part, const std::byte* weights, const std::byte* scales, std::byte* out) noexcept {
  constexpr int64_t kSourceBytes = kFp4BlockWeights / 2;
  constexpr int64_t kBlockBytes = kSourceBytes + 1;
  uint8_t largest = 0;
  for (int64_t block = 0; block < part.cols / kFp4BlockWeights; ++block) {
    repack_mxfp4_block(weights + block * kSourceBytes, scales[block], out + block * kBlockBytes);
    largest = std::max(largest, static_cast<uint8_t>(scales[block]));
  }
  return largest <= kMaxFp4Scale;
}

bool copy_i64_row(const EncodedTensor& part, const std::byte* from, std::byte* out) noexcept {
  bool fits = true;
  for (int64_t i = 0; i < part.cols; ++i) {
    const auto value = load_le<int64_t>(from + 8 * i);
    const auto narrow = static_cast<int32_t>(value);
    fits &= narrow == value;
    store_le(out + 4 * i, narrow);
  }
  return fits;
}

bool is_integer(DType dtype) { return dtype == DType::I32 || dtype == DType::I64; }

// Returns what is wrong with the row, or nullptr.
const char* copy_row(const Segment& segment, const std::byte* weights, const std::byte* scales, std::byte* out) {
  const EncodedTensor& part = *segment.part;
  const DType dtype = part.weights->dtype;
  if (part.encoding == Encoding::kFp4Pairs) {
    return copy_fp4_row(part, weights, scales, out) ? nullptr : "an e8m0 scale above 2^125";
  }
  if (dtype == DType::I64) return copy_i64_row(part, weights, out) ? nullptr : "a value outside the range of I32";
  std::memcpy(out, weights, part.row_bytes);
  const bool good = is_integer(dtype) || find_nonfinite_block(dtype, {weights, part.row_bytes}) < 0;
  return good ? nullptr : kNonfinite;
}

DType part_type(const EncodedTensor& part) noexcept {
  if (part.encoding == Encoding::kFp4Pairs) return DType::MXFP4;
  switch (part.weights->dtype) {
    case DType::F8_E4M3:
    case DType::F8_E5M2:
      return DType::BF16;
    case DType::F64:
      return DType::F32;
    case DType::I64:
      return DType::I32;
    default:
      return part.weights->dtype;
  }
}

// Type that copy_rows makes of a part, empty if none.
std::optional<DType> copied_type(const EncodedTensor& part) noexcept {
  const DType dtype = part.weights->dtype;
  if (part.encoding == Encoding::kBlockFp8 || dtype == DType::F64 || dtype == DType::F8_E5M2) return std::nullopt;
  return part_type(part);
}

// e4m3 has 4 significant bits and e5m2 3, so a power of two as the scale leaves them as they are in BF16, unless the exponent of the
// largest or the smallest code leaves BF16's range: 2^-9 * 2^-124 is BF16's smallest subnormal 2^-133, 448 * 2^119 is below 2^128.
// e5m2 reaches further both ways: 2^-16 and 57344.
bool exact_in_bf16(DType weights, float scale) noexcept {
  const auto bits = std::bit_cast<uint32_t>(scale);
  const int exponent = static_cast<int>(bits >> 23 & 0xFF) - 127;
  const bool power_of_two = (bits & 0x807FFFFF) == 0;  // subnormals are too small anyway
  return power_of_two && (weights == DType::F8_E4M3 ? exponent >= -124 && exponent <= 119 : exponent >= -117 && exponent <= 112);
}

constexpr const char* kBf16Bound = "BF16 moves a weight by at most 2^-8 of its size";

Exactness fp8_exactness(const safetensors::Checkpoint& checkpoint, const EncodedTensor& part) {
  const safetensors::StoredTensor& scales = *part.scales;
  const uint64_t element_bytes = static_cast<uint64_t>(traits(scales.dtype).block_bytes);
  constexpr uint64_t kPieceBytes = 64 << 10;  // V3's scales fail at the first one, so the first piece decides
  std::vector<std::byte> piece;
  for (uint64_t at = 0; at < scales.size_bytes; at += piece.size()) {
    piece.resize(std::min(kPieceBytes, scales.size_bytes - at));
    checkpoint.read(scales, at, piece);
    for (int64_t i = 0; i < static_cast<int64_t>(piece.size() / element_bytes); ++i) {
      if (exact_in_bf16(part.weights->dtype, scale_value(scales.dtype, piece.data(), i))) continue;
      return {std::nullopt, "the FP8 scales in '" + scales.name + "' are not all powers of two within BF16's range; " + kBf16Bound};
    }
  }
  return {DType::BF16, {}};
}

Exactness part_exactness(const safetensors::Checkpoint& checkpoint, const EncodedTensor& part) {
  if (part.encoding == Encoding::kBlockFp8) return fp8_exactness(checkpoint, part);
  if (part.weights->dtype == DType::F64) {
    return {std::nullopt, "'" + part.weights->name + "' is F64; F32 moves a weight by at most 2^-24 of its size, BF16 by at most 2^-8"};
  }
  return {part_type(part), {}};
}

}  // namespace

uint64_t fetch_rows(const safetensors::Checkpoint& checkpoint, const Assembly& assembly, bool drop_behind, RawRows& raw) {
  const std::vector<Segment> list = segments(assembly, raw.first_row, raw.n_rows);
  uint64_t weight_bytes = 0;
  uint64_t scale_bytes = 0;
  for (const Segment& segment : list) {
    weight_bytes += segment.weight_bytes();
    scale_bytes += segment.scale_bytes();
  }
  raw.weights.resize(weight_bytes);
  raw.scales.resize(scale_bytes);

  std::byte* weights = raw.weights.data();
  std::byte* scales = raw.scales.data();
  for (const Segment& segment : list) {
    const EncodedTensor& part = *segment.part;
    const auto first = static_cast<uint64_t>(segment.slice * part.rows + segment.first);
    checkpoint.read(*part.weights, first * part.row_bytes, {weights, segment.weight_bytes()});
    if (drop_behind && !interleaves(assembly.transform)) {
      checkpoint.files()[part.weights->file_index].done_with(part.weights->file_offset + first * part.row_bytes, segment.weight_bytes());
    }
    weights += segment.weight_bytes();
    if (part.scales == nullptr) continue;
    const auto first_block = static_cast<uint64_t>(segment.slice * part.scale_rows + segment.first_block_row());
    checkpoint.read(*part.scales, first_block * part.scale_row_bytes, {scales, segment.scale_bytes()});
    scales += segment.scale_bytes();
  }
  return weight_bytes + scale_bytes;
}

void decode_rows(const Assembly& assembly, const RawRows& raw, std::span<float> out) {
  const int64_t first = raw.first_row * assembly.moved_per_row;
  QUERN_CHECK(static_cast<int64_t>(out.size()) == raw.n_rows * assembly.moved_per_row * assembly.cols);
  if (assembly.transform == Transform::kGenerated) {
    std::ranges::copy(std::span(assembly.generated).subspan(static_cast<size_t>(first * assembly.cols), out.size()), out.begin());
    return;
  }
  if (assembly.transform == Transform::kSplitKeyB) return decode_transposed(assembly, raw, out);
  for_each_segment(assembly, raw, [&](const Segment& segment, const SegmentBytes& bytes) {
    const auto cols = static_cast<size_t>(segment.part->cols);
    for (int64_t out_row = segment.out_first; out_row < segment.out_first + segment.out_n; ++out_row) {
      const int64_t row = row_in_segment(assembly, segment, out_row);
      const auto at = static_cast<size_t>((out_row - first) * assembly.cols + segment.out_col);
      const std::span<float> decoded = out.subspan(at, cols);
      decode_row(*segment.part, bytes.weight_row(segment, row), bytes.scale_row(segment, row), decoded);
      if (!all_finite(decoded)) throw_bad_row(assembly, segment, out_row, row, kNonfinite);
    }
  });
}

bool can_copy(const Assembly& assembly, DType type) noexcept {
  if (assembly.transform == Transform::kGenerated) return type == DType::F32;
  if (assembly.transform == Transform::kSplitKeyB) return false;
  return std::ranges::all_of(assembly.parts, [&](const EncodedTensor& part) { return copied_type(part) == type; });
}

void copy_rows(const Assembly& assembly, const RawRows& raw, DType type, std::span<std::byte> out) {
  QUERN_CHECK(can_copy(assembly, type));
  if (assembly.transform == Transform::kGenerated) {
    QUERN_CHECK(out.size() == assembly.generated.size() * sizeof(float));
    return static_cast<void>(std::ranges::copy(std::as_bytes(std::span(assembly.generated)), out.begin()));
  }
  const int64_t first = raw.first_row * assembly.moved_per_row;
  const uint64_t row_bytes = row_size_bytes(type, assembly.cols);
  QUERN_CHECK(out.size() == static_cast<uint64_t>(raw.n_rows * assembly.moved_per_row) * row_bytes);
  for_each_segment(assembly, raw, [&](const Segment& segment, const SegmentBytes& bytes) {
    std::byte* const column = out.data() + row_size_bytes(type, segment.out_col);
    for (int64_t out_row = segment.out_first; out_row < segment.out_first + segment.out_n; ++out_row) {
      const int64_t row = row_in_segment(assembly, segment, out_row);
      const char* fault = copy_row(segment, bytes.weight_row(segment, row), bytes.scale_row(segment, row),
                                   column + static_cast<uint64_t>(out_row - first) * row_bytes);
      if (fault != nullptr) throw_bad_row(assembly, segment, out_row, row, fault);
    }
  });
}

DType source_type(const Assembly& assembly) noexcept {
  if (assembly.parts.empty()) return DType::F32;
  const DType type = part_type(assembly.parts[0]);
  const bool same = std::ranges::all_of(assembly.parts, [&](const EncodedTensor& part) { return part_type(part) == type; });
  return same ? type : DType::F32;
}

Exactness exactness(const safetensors::Checkpoint& checkpoint, const Assembly& assembly) {
  for (const EncodedTensor& part : assembly.parts) {
    Exactness exact = part_exactness(checkpoint, part);
    if (!exact.type) return exact;
  }
  // Parts of different types meet in F32, which holds every value of BF16, F16 and FP4.
  return {source_type(assembly), {}};
}

}  // namespace quern::checkpoint
