#pragma once

#include <string>

#include "convert/convert.h"
#include "convert/plan/plan.h"

namespace quern {

// "quern.convert/1" (docs/formats/plan.md): what a conversion would make, or has made. Both end with a newline.

// threads: that the conversion would use; memory depends on it.
std::string forecast_to_json(const Plan& plan, int threads);
std::string report_to_json(const ConvertReport& report);

// Bytes of all files of an output.
uint64_t size_of(const PlannedOutput& output);
// Stored bits of its tensors divided by the weights of the plan.
double bits_per_weight(const Plan& plan, const PlannedOutput& output);

}  // namespace quern
