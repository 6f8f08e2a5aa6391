#include "convert/plan/memory.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "formats/base/checked.h"
#include "formats/base/resources.h"
#include "quantize/plain/encode.h"

namespace quern {
namespace {

// Enough weights for one chunk to hide what a chunk costs apart from its weights, few enough that chunks stay in a cache near the
// core and that all threads have one.
constexpr int64_t kChunkWeights = int64_t{1} << 20;
// Share of the budget that the chunks of a plan may take each, so that at least this many are in work.
constexpr uint64_t kLeastChunks = 4;
// Resident memory of what is neither headers nor chunks: the process itself, thread stacks, hash states, allocator slack.
constexpr uint64_t kProcessBytes = uint64_t{32} << 20;

// Memory of a chunk of n_rows: stored bytes, floats, the blocks of every distinct type, and what their encoders take, one after the other.
uint64_t chunk_bytes(const Plan& plan, const ModelSource& source, size_t t, int64_t n_rows) {
  const PlannedTensor& tensor = plan.tensors[t];
  const uint64_t rows = static_cast<uint64_t>(n_rows);
  const uint64_t row_length = static_cast<uint64_t>(tensor.shape.row_length());
  uint64_t bytes = source.raw_bytes(tensor.source_index, n_rows);
  if (!tensor.integer) bytes += checked_mul(checked_mul(rows, row_length, "chunk size"), uint64_t{sizeof(float)}, "chunk size");
  std::set<DType> types;
  for (const PlannedOutput& output : plan.outputs) types.insert(output.tensors[t].type);
  uint64_t encoder = 0;
  for (const DType type : types) {
    bytes += rows * row_size_bytes(type, tensor.shape.row_length());
    encoder = std::max(encoder, encoder_bytes(type));
  }
  return bytes + encoder;
}

// Rows per chunk: about kChunkWeights, whole groups of rows that share stored bytes or are encoded together, and within the memory for
// one chunk. When not even one group fits, fewer rows: then some stored bytes (scales, transposed blocks) are read more than once.
int64_t rows_per_chunk(const Plan& plan, const ModelSource& source, size_t t, uint64_t limit_bytes) {
  const PlannedTensor& tensor = plan.tensors[t];
  const int64_t n_rows = tensor.shape.n_rows();
  const int64_t shared = std::clamp<int64_t>(source.tensors()[tensor.source_index].row_alignment, 1, n_rows);
  const int64_t group = std::min(std::lcm(shared, kRowsEncodedTogether), n_rows);
  const int64_t wanted = std::max<int64_t>(kChunkWeights / std::max<int64_t>(tensor.shape.row_length(), 1), 1);
  int64_t rows = std::min(n_rows, std::max(wanted / group * group, group));
  while (rows > group && chunk_bytes(plan, source, t, rows) > limit_bytes) rows = std::max(rows / 2 / group * group, group);
  while (rows > 1 && chunk_bytes(plan, source, t, rows) > limit_bytes) rows /= 2;
  return rows;
}

uint64_t header_bytes(const Plan& plan) {
  uint64_t bytes = 0;
  for (const PlannedOutput& output : plan.outputs) bytes += output.files.front().data_offset;
  return bytes;
}

// The planes behind the first one of a tensor are kept until it is complete (convert/fill/output_writer.cc), in every output of the
// largest tensor of that output; what cuts blocks into planes has a buffer on both ways, into the file and into the sums.
uint64_t kept_bytes(const Plan& plan) {
  uint64_t bytes = 0;
  for (const PlannedOutput& output : plan.outputs) {
    uint64_t most = 0;
    for (const Placement& placement : output.tensors) {
      const uint64_t behind = placement.size_bytes - placement.planes.front().size_bytes;
      if (behind > 0) most = std::max(most, behind + 2 * kRunBytes);
    }
    bytes += most;
  }
  return bytes;
}

}  // namespace

void check_memory(const Plan& plan, uint64_t smallest_bytes, std::vector<Problem>& problems) {
  if (plan.memory_bytes >= smallest_bytes) return;
  constexpr uint64_t kMebibyte = uint64_t{1} << 20;
  const uint64_t given = plan.memory_bytes + plan.beside_bytes;  // people give one budget for both
  const uint64_t smallest = smallest_bytes * (given / plan.memory_bytes);
  problems.push_back({ErrorKind::kUsage, "a memory budget of " + format_size(given) + " is too small; the smallest that works" +
                                             (plan.beside_bytes > 0 ? " with error feedback from a text is " : " is ") +
                                             std::to_string((smallest + kMebibyte - 1) / kMebibyte) + "MiB"});
}

void plan_memory(const ModelSource& source, uint64_t memory_bytes, uint64_t feedback_bytes, Plan& plan, std::vector<Problem>& problems) {
  plan.memory_bytes = memory_bytes != 0 ? memory_bytes : default_memory_budget();
  plan.base_bytes = peak_resident_bytes() + kProcessBytes + 2 * header_bytes(plan) + kept_bytes(plan) + feedback_bytes;
  const uint64_t left = plan.memory_bytes > plan.base_bytes ? plan.memory_bytes - plan.base_bytes : 0;
  uint64_t smallest = 0;
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    PlannedTensor& tensor = plan.tensors[t];
    tensor.chunk_rows = rows_per_chunk(plan, source, t, left / kLeastChunks);
    plan.chunk_bytes = std::max(plan.chunk_bytes, chunk_bytes(plan, source, t, tensor.chunk_rows));
    smallest = std::max(smallest, chunk_bytes(plan, source, t, 1));
  }
  check_memory(plan, plan.base_bytes + kLeastChunks * smallest, problems);
}

int chunks_in_flight(const Plan& plan, int n_threads) {
  const uint64_t left = plan.memory_bytes > plan.base_bytes ? plan.memory_bytes - plan.base_bytes : 0;
  const uint64_t fit = left / std::max<uint64_t>(plan.chunk_bytes, 1);
  const uint64_t wanted = static_cast<uint64_t>(2 * n_threads + 2);
  return static_cast<int>(std::clamp<uint64_t>(fit, 1, wanted));
}

uint64_t predicted_memory(const Plan& plan, int n_threads) {
  return plan.base_bytes + static_cast<uint64_t>(chunks_in_flight(plan, n_threads)) * plan.chunk_bytes + plan.beside_bytes;
}

}  // namespace quern
