#pragma once

#include <string>

#include "convert/convert.h"
#include "convert/plan/plan.h"

namespace quern {

// "quern.convert/1" (docs/formats/plan.md): what a conversion would make, or has made. Both end with a newline.

// threads: that the conversion would use; memory depends on it.
std::string forecast_to_json(const Plan& plan, int threads);
std::string report_to_json(const ConvertReport& report);

}  // namespace quern
