#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "convert/convert.h"

namespace quern {

// A plan in parts: part k of n encodes its share of the chunks for every output, anywhere; merging puts the parts into the files
// that one run would have made, byte for byte.
//
// A part is two files: STEM.part-00002-of-00008.json, the index, and the same with .bin, which holds for each output the bytes of
// the part's chunks one after the other (docs/formats/plan.md).

struct PartReport {
  std::filesystem::path index;
  std::filesystem::path data;
  uint64_t data_bytes = 0;
  uint64_t bytes_read = 0;
  double seconds = 0;
};

// "quern.part-report/1" (docs/formats/plan.md), with a newline.
std::string part_report_to_json(const PartReport& report, int64_t k, int64_t n);

// k counts from 1.
PartReport run_part(const ModelSource& source, const Plan& plan, int64_t k, int64_t n, const std::filesystem::path& folder,
                    Progress& progress, const Calibration& calibration = {});

// An earlier merge into plan.folder did not end: what has a name there may be replaced.
bool merge_was_interrupted(const Plan& plan);

// Assembles the outputs in plan.folder from the indexes of all parts. Throws kFormat naming the part when one is missing, doubled,
// of another plan, or damaged.
ConvertReport merge_parts(const Plan& plan, const std::vector<std::filesystem::path>& indexes, Progress& progress);

}  // namespace quern
