#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "convert/plan/plan.h"
#include "convert/plan/plan_options.h"
#include "formats/base/problems.h"
#include "formats/model/model_source.h"

namespace quern {

// The steps of planning that only look for problems. Each appends what it finds.

// All that is wrong with the options alone, found even when there is no source.
std::vector<Problem> check_options(const PlanOptions& options);

// "REGEX=TYPE" taken apart at the last '='. Entries that cannot be read are reported and left out.
std::vector<RecipeRule> parse_overrides(const std::vector<std::string>& tensor_types, std::vector<Problem>& problems);

// The mixes that are known, each once.
std::vector<const Mix*> parse_types(const std::vector<std::string>& types, std::vector<Problem>& problems);

// Whether a container holds all these types, one per tensor; when not, a problem says which it does not.
bool can_hold(const Container& container, const std::vector<PlannedTensor>& tensors, const std::vector<DType>& types,
              const std::string& recipe, std::vector<Problem>& problems);

// Types that cannot be written, names that the containers cannot hold.
void check_types(const Plan& plan, std::vector<Problem>& problems);

// Overrides that match no tensor are typing mistakes; those that match only tensors of the keep-list cannot do anything.
void check_overrides(const ModelSource& source, const PlanOptions& options, std::vector<Problem>& problems);

// A mix of block types can do nothing for a model of which no matrix may be quantized.
void check_quantizable(const ModelSource& source, const Mix* mix, std::vector<Problem>& problems);

// SHA-256 of the file's first and last 64 KiB.
std::string fingerprint(const std::filesystem::path& file);

// Throws kFormat when the source is not what the plan was made from: a file was added, removed or changed, or a tensor differs; and
// kUnsupported when the plan has a tensor in a type that cannot be written.
void check_source(const Plan& plan, const ModelSource& source);

}  // namespace quern
