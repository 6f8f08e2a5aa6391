#pragma once

#include <string>
#include <string_view>

#include "formats/gguf/metadata.h"

namespace quern {

// File name of an output, without shard number and extension: [mtp-]BaseName-SizeLabel[-FineTune]-Version[-partial]-LABEL, the naming
// convention of GGUF, which serves others too. The label is last because the Hub takes the last type name that it finds. Characters that
// are awkward in file names become dashes.
std::string output_stem(const Metadata& metadata, bool mtp, bool partial, std::string_view label);

}  // namespace quern
