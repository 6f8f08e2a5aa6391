#pragma once

#include <vector>

#include "convert/record/build_record.h"
#include "formats/model/model_source.h"
#include "verify/records/finding.h"
#include "verify/records/manifest.h"

namespace quern {

// Compares the metadata of a build, as its record has it, with what the checkpoint gives, key by key. Adds a finding for each key that is
// another, is missing or does not follow from the checkpoint: kDamage, or kUnprovable when another version made the build or the manifest
// says that the publisher gave the chat template. Keys of how the build was made are no part of it; those that publishers may choose are
// one note together. manifest: nullptr when there is none. Returns the number of keys that were compared.
size_t rederive_metadata(const BuildRecord& build, const ModelSource& source, const Manifest* manifest, std::vector<Finding>& findings);

}  // namespace quern
