#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "convert/fill/figures.h"
#include "convert/plan/chunks.h"

namespace quern {

// The index of a part, STEM.part-00002-of-00008.json (docs/formats/plan.md).

inline constexpr uint64_t kMaxIndexBytes = uint64_t{1} << 30;

// Bytes of an output's tensor data that a part has: [begin, begin + size), one output after the other in the part's data file.
struct PartSection {
  uint64_t begin = 0;
  uint64_t size = 0;
  uint64_t offset = 0;  // in the data file
};
std::vector<PartSection> part_sections(const Plan& plan, const Chunks& chunks, Chunks::Range range);

struct PartIndex {
  int64_t k = 0, n = 0;  // k counts from 1
  std::vector<PartSection> sections;
  std::vector<std::string> sections_sha256;
  std::vector<double> encode_seconds;  // per output
};

std::string part_index_to_json(const Plan& plan, int64_t k, int64_t n, const std::vector<std::string>& sections_sha256,
                               const PipelineResult& result);
// Reads hostile text. id: plan_id() of the plan. What the index says about tensors is added to figures, one per tensor, and partial.
// Throws kFormat for what is not of this plan.
PartIndex part_index_from_json(const Plan& plan, const std::string& id, std::string_view text, std::vector<TensorFigures>& figures,
                               std::map<Unit, PartialFigures>& partial);

}  // namespace quern
