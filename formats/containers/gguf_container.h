#pragma once

#include "formats/containers/container.h"

namespace quern {

// GGUF, whole or in shards that know their number: every tensor is one array, its blocks as the encoders make them.
const Container& gguf_container();

}  // namespace quern
