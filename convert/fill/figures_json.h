#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "convert/fill/figures.h"

namespace quern {

// Figures as JSON, in the indexes of parts and in journals (docs/formats/plan.md): exact sums keep all their digits, so that what is added
// after reading gives the bits that one run gives.

// Those of the tensors [first, last), of their slices, and partial sums of these.
nlohmann::json figures_to_json(const PipelineResult& result, size_t first, size_t last);

// Puts what an array of figures says where it belongs; partial sums are added to those already there. Throws kFormat when they are not of
// this plan, json::exception when they are not figures.
void add_figures(const Plan& plan, const nlohmann::json& array, std::vector<TensorFigures>& figures,
                 std::map<Unit, PartialFigures>& partial);

}  // namespace quern
