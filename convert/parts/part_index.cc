#include "convert/parts/part_index.h"

#include <nlohmann/json.hpp>

#include "convert/fill/figures_json.h"
#include "convert/plan/layout.h"
#include "formats/base/error.h"
#include "formats/base/json_tree.h"

namespace quern {
namespace {

using nlohmann::json;

constexpr const char* kSchema = "quern.part/1";
constexpr int kMaxDepth = 8;

}  // namespace

std::vector<PartSection> part_sections(const Plan& plan, const Chunks& chunks, Chunks::Range range) {
  std::vector<PartSection> sections;
  uint64_t offset = 0;
  for (size_t output = 0; output < plan.outputs.size(); ++output) {
    PartSection section;
    section.begin = chunks.data_position(output, range.first);
    section.size = chunks.data_position(output, range.last) - section.begin;
    section.offset = offset;
    offset += section.size;
    sections.push_back(section);
  }
  return sections;
}

std::string part_index_to_json(const Plan& plan, int64_t k, int64_t n, const std::vector<std::string>& sections_sha256,
                               const PipelineResult& result) {
  const json index = {{"schema", kSchema},
                      {"plan", plan_id(plan)},
                      {"part", k},
                      {"of", n},
                      {"encode_seconds", result.encode_seconds},
                      {"sections_sha256", sections_sha256},
                      {"figures", figures_to_json(result, 0, plan.tensors.size())}};
  return index.dump() + "\n";
}

PartIndex part_index_from_json(const Plan& plan, const std::string& id, std::string_view text, std::vector<TensorFigures>& figures,
                               std::map<Unit, PartialFigures>& partial) {
  try {
    const json root = parse_json_tree(text, kMaxDepth);
    if (root.at("schema") != kSchema) {
      throw Error(ErrorKind::kFormat, "is not the index of a part (schema '" + std::string(kSchema) + "')");
    }
    if (root.at("plan") != id) throw Error(ErrorKind::kFormat, "belongs to another plan");
    PartIndex index;
    index.k = integer_from<int64_t>(root.at("part"));
    index.n = integer_from<int64_t>(root.at("of"));
    if (index.n < 1 || index.k < 1 || index.k > index.n) throw Error(ErrorKind::kFormat, "impossible part number");
    const Chunks chunks(plan);
    index.sections = part_sections(plan, chunks, chunks.part(index.k - 1, index.n));
    index.sections_sha256 = root.at("sections_sha256").get<std::vector<std::string>>();
    index.encode_seconds = root.at("encode_seconds").get<std::vector<double>>();
    if (index.sections_sha256.size() != plan.outputs.size() || index.encode_seconds.size() != plan.outputs.size()) {
      throw Error(ErrorKind::kFormat, "has another number of outputs");
    }
    add_figures(plan, root.at("figures"), figures, partial);
    return index;
  } catch (const json::exception& error) {
    throw Error(ErrorKind::kFormat, std::string("not the index of a part: ") + printable(error.what()));
  }
}

}  // namespace quern
