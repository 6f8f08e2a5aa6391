#include "formats/checkpoint/transforms.h"

#include <algorithm>
#include <array>

namespace quern::checkpoint {
namespace {

using encodings::EncodedTensor;
using encodings::Plane;
using enum Transform;

bool splits_heads(Transform transform) { return transform == kSplitKeyB || transform == kSplitValueB; }
bool halves(Transform transform) { return transform == kFirstHalfRows || transform == kSecondHalfRows; }

// Shape of the one stored tensor a rule reads, or of each slice's own one. kConcatColumns: of the first of two equal halves.
Shape stored_shape(const TensorRule& rule, bool per_slice) {
  const Shape& shape = rule.shape;
  const int last = shape.rank() - 1;
  if (per_slice) return Shape(shape.dims().subspan(1));
  switch (rule.transform) {
    case kSplitKeyB:
      return {rule.n_head * (rule.nope_dim + rule.value_dim), shape[1]};
    case kSplitValueB:
      return {rule.n_head * (rule.nope_dim + rule.value_dim), shape[last]};
    case kConcatColumns:
      return {shape[0], shape[1] / 2};
    case kEvenRows:
    case kOddRows:
    case kFirstHalfRows:
    case kSecondHalfRows: {
      std::array<int64_t, Shape::kMaxRank> dims{};
      std::ranges::copy(shape.dims(), dims.begin());
      dims[1] *= 2;
      return Shape(std::span<const int64_t>(dims).first(static_cast<size_t>(shape.rank())));
    }
    default:
      return shape;
  }
}

// Rules are ours: what they say must fit together.
void check_rule(const TensorRule& rule) {
  const Shape& shape = rule.shape;
  QUERN_CHECK(shape.rank() >= 1 && shape.rank() <= 3);
  switch (rule.transform) {
    case kPermuteHeads:
      QUERN_CHECK(shape.rank() <= 2 && rule.n_head > 0);
      break;
    case kSplitKeyB:
      QUERN_CHECK(shape.rank() == 3 && shape[0] == rule.n_head && shape[2] == rule.nope_dim);
      break;
    case kSplitValueB:
      QUERN_CHECK(shape.rank() == 3 && shape[0] == rule.n_head && shape[1] == rule.value_dim);
      break;
    case kConcatColumns:
      QUERN_CHECK(shape.rank() == 2 && shape[1] % 2 == 0);
      break;
    case kEvenRows:
    case kOddRows:
    case kFirstHalfRows:
    case kSecondHalfRows:
      QUERN_CHECK(shape.rank() == 2 || shape.rank() == 3);
      break;
    case kGenerated:
      QUERN_CHECK(static_cast<int64_t>(rule.generated.size()) == shape.n_elements());
      break;
    case kNone:
    case kStoredStack:
      break;
  }
}

// Counts the elements of a vector, or of each vector of a stack, as rows of one column. Only for tensors that have nothing but codes.
void elements_as_rows(EncodedTensor& tensor) {
  tensor.n_slices *= tensor.rows;
  tensor.rows = tensor.cols;
  tensor.cols = 1;
  Plane& codes = tensor.plane_array[0];
  codes.n_units = tensor.rows;
  codes.unit_bytes /= static_cast<uint64_t>(tensor.rows);
}

// Where the rows that a transform moves are elements: vectors of heads, [E, 2F] stacks.
bool moves_elements(const TensorRule& rule) {
  if (rule.transform == kPermuteHeads) return rule.shape.rank() == 1;
  return (interleaves(rule.transform) || halves(rule.transform)) && rule.shape.rank() == 2;
}

// Sets what follows from the parts and the logical shape.
void set_geometry(const TensorRule& rule, bool per_slice, Assembly& assembly) {
  const Shape& shape = rule.shape;
  if (moves_elements(rule)) {
    std::ranges::for_each(assembly.parts, elements_as_rows);
    assembly.moved_per_row = shape.row_length();
    assembly.cols = 1;
    assembly.slice_rows = shape.row_length();
    assembly.n_moved_rows = shape.n_elements();
  } else {
    assembly.cols = shape.row_length();
    assembly.n_moved_rows = shape.n_rows();
    assembly.slice_rows = assembly.n_moved_rows;
    if (shape.rank() == 3) assembly.slice_rows = shape[1];
    if (per_slice) assembly.slice_rows = assembly.n_moved_rows / shape[0];
  }
  if (splits_heads(rule.transform)) assembly.head_rows = rule.nope_dim + rule.value_dim;
  if (rule.transform == kPermuteHeads) assembly.head_rows = assembly.slice_rows / rule.n_head;
  assembly.nope_dim = rule.nope_dim;
}

// Stored rows of slice `slice` that moved rows [begin, end) of the same slice come from.
Segment slice_segment(const Assembly& assembly, int64_t slice, int64_t begin, int64_t end) {
  Segment segment;
  const bool one_part = assembly.parts.size() == 1;
  segment.part = &assembly.parts[one_part ? 0 : static_cast<size_t>(slice)];
  segment.slice = one_part && !splits_heads(assembly.transform) ? slice : 0;
  segment.first = begin;
  segment.n = end - begin;
  segment.out_first = slice * assembly.slice_rows + begin;
  segment.out_n = end - begin;
  const int64_t head = assembly.head_rows;
  switch (assembly.transform) {
    case kPermuteHeads:
      segment.first = begin / head * head;
      segment.n = (end + head - 1) / head * head - segment.first;
      break;
    case kSplitKeyB:
      segment.first = slice * head;
      segment.n = assembly.nope_dim;
      break;
    case kSplitValueB:
      segment.first = slice * head + assembly.nope_dim + begin;
      break;
    case kSecondHalfRows:
      segment.first = assembly.slice_rows + begin;
      break;
    case kEvenRows:
    case kOddRows:
      segment.first = 2 * begin + (assembly.transform == kOddRows ? 1 : 0);
      segment.n = 2 * (end - begin) - 1;
      break;
    default:
      break;
  }
  return segment;
}

// Bytes of every second row of a segment that reads all of them: what belongs to one of two tensors that share the rows.
uint64_t half_of(const Segment& segment) {
  const Plane& codes = segment.part->codes();
  uint64_t sum = codes.bytes_of(0, segment.out_n);
  for (const Plane& plane : segment.part->planes().subspan(1)) sum += plane.bytes_of(segment.first, segment.n) / 2;
  return sum;
}

// The larger of two granularities if it is a multiple of the other, else the one that costs no weight byte twice.
int64_t common_multiple_or(int64_t weights, int64_t scales) { return scales % weights == 0 ? scales : weights; }

}  // namespace

bool interleaves(Transform transform) noexcept { return transform == kEvenRows || transform == kOddRows; }

std::vector<std::string> stored_names(const TensorRule& rule) {
  if (rule.transform == kGenerated) return {};
  const std::string& stored = rule.stored;
  if (rule.transform == kConcatColumns) {
    const size_t bar = stored.find('|');
    QUERN_CHECK(bar != stored.npos);
    return {stored.substr(0, bar), stored.substr(bar + 1)};
  }
  constexpr std::string_view kExpert = "{e}";
  const size_t at = stored.find(kExpert);
  if (at == stored.npos) return {stored};
  std::vector<std::string> names;
  for (int64_t expert = 0; expert < rule.shape[0]; ++expert) {
    names.push_back(stored.substr(0, at) + std::to_string(expert) + stored.substr(at + kExpert.size()));
  }
  return names;
}

std::optional<Assembly> assemble(const safetensors::Checkpoint& checkpoint, const ModelConfig& config, const TensorRule& rule,
                                 Problems& problems) {
  check_rule(rule);
  const std::vector<std::string> names = stored_names(rule);
  const bool per_slice = rule.stored.find("{e}") != std::string::npos;
  const Shape shape = stored_shape(rule, per_slice);

  Assembly assembly;
  assembly.transform = rule.transform;
  assembly.generated = rule.generated;
  for (const std::string& name : names) {
    auto part = encodings::find_encoded(checkpoint, config, name, shape, rule.keep == Keep::kInteger, problems);
    if (part) assembly.parts.push_back(std::move(*part));
  }
  if (assembly.parts.size() != names.size()) return std::nullopt;
  const auto encoded_vector = [](const EncodedTensor& part) { return part.n_planes > 1; };
  if (moves_elements(rule) && std::ranges::any_of(assembly.parts, encoded_vector)) {
    problems.add(ErrorKind::kUnsupported, "'" + names[0] + "' has block scales, but its elements have to be rearranged");
    return std::nullopt;
  }
  set_geometry(rule, per_slice, assembly);
  if (rule.transform == kPermuteHeads && assembly.slice_rows % (2 * rule.n_head) != 0) {
    problems.add(ErrorKind::kFormat, "'" + names[0] + "' has " + std::to_string(assembly.slice_rows) + " rows, which are no " +
                                         std::to_string(rule.n_head) + " heads of an even number of rows");
    return std::nullopt;
  }
  return assembly;
}

std::vector<Segment> segments(const Assembly& assembly, int64_t first_row, int64_t n_rows) {
  std::vector<Segment> result;
  if (assembly.parts.empty()) return result;
  const int64_t begin = first_row * assembly.moved_per_row;
  const int64_t end = begin + n_rows * assembly.moved_per_row;
  if (assembly.transform == kConcatColumns) {
    int64_t out_col = 0;
    for (const EncodedTensor& part : assembly.parts) {
      result.push_back({&part, 0, begin, end - begin, begin, end - begin, out_col});
      out_col += part.cols;
    }
    return result;
  }
  for (int64_t at = begin; at < end;) {
    const int64_t slice = at / assembly.slice_rows;
    const int64_t slice_begin = slice * assembly.slice_rows;
    const int64_t stop = std::min(end, slice_begin + assembly.slice_rows);
    result.push_back(slice_segment(assembly, slice, at - slice_begin, stop - slice_begin));
    at = stop;
  }
  return result;
}

int64_t row_in_segment(const Assembly& assembly, const Segment& segment, int64_t out_row) noexcept {
  if (interleaves(assembly.transform)) return 2 * (out_row - segment.out_first);
  if (assembly.transform != kPermuteHeads) return out_row - segment.out_first;
  const int64_t head = assembly.head_rows;
  const int64_t in_head = out_row % head;  // a permuted tensor has one slice, so rows of the tensor are rows of the slice
  return out_row - in_head - segment.first + in_head / 2 + in_head % 2 * (head / 2);
}

int64_t row_alignment(const Assembly& assembly) noexcept {
  if (assembly.parts.empty() || assembly.moved_per_row > 1) return 1;
  const int64_t tile_rows = assembly.parts[0].tile_rows;
  switch (assembly.transform) {
    case kSplitKeyB:
      return assembly.slice_rows;
    case kSplitValueB:
      return assembly.slice_rows % tile_rows == 0 ? tile_rows : assembly.slice_rows;
    case kPermuteHeads:
      return common_multiple_or(assembly.head_rows, tile_rows);
    case kEvenRows:
    case kOddRows:
      return std::max<int64_t>(tile_rows / 2, 1);
    default:
      return tile_rows;
  }
}

uint64_t Segment::size_bytes() const noexcept {
  uint64_t sum = 0;
  for (const Plane& plane : part->planes()) sum += plane.bytes_of(first, n);
  return sum;
}

uint64_t source_bytes(const Assembly& assembly) {
  uint64_t sum = 0;
  for (const Segment& segment : segments(assembly, 0, assembly.n_moved_rows / assembly.moved_per_row)) {
    sum += interleaves(assembly.transform) ? half_of(segment) : segment.size_bytes();
  }
  return sum;
}

uint64_t raw_bytes(const Assembly& assembly, int64_t n_rows) {
  const int64_t moved = std::min(n_rows * assembly.moved_per_row, assembly.n_moved_rows);
  if (assembly.parts.empty() || moved == 0) return 0;
  const int64_t n_segments = (moved + assembly.slice_rows - 2) / assembly.slice_rows + 1;
  int64_t rows = moved;
  switch (assembly.transform) {
    case kSplitKeyB:
      rows = n_segments * assembly.nope_dim;
      break;
    case kPermuteHeads:
      rows = std::min(moved + 2 * assembly.head_rows, assembly.n_moved_rows);
      break;
    case kEvenRows:
    case kOddRows:
      rows = 2 * moved;
      break;
    default:
      break;
  }
  uint64_t sum = 0;
  const size_t n_parts = assembly.transform == kConcatColumns ? assembly.parts.size() : 1;
  for (const EncodedTensor& part : std::span(assembly.parts).first(n_parts)) {
    for (const Plane& plane : part.planes()) {
      // Companions are small, so that the bound need not be tight: a unit may be cut at both ends of every segment.
      const bool whole_rows = &plane == &part.codes() && plane.unit_rows == 1;
      const int64_t n_units = rows / plane.unit_rows + (whole_rows ? 0 : 2 * n_segments);
      sum += static_cast<uint64_t>(plane.n_stripes * n_units) * plane.unit_bytes;
    }
  }
  return sum;
}

}  // namespace quern::checkpoint
