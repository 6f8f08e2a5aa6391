#pragma once

#include <string>
#include <vector>

#include "formats/gguf/gguf.h"

namespace quern::gguf {

// read_header for a look at broken files: lists foreign tensors, notes what breaks a rule but can be read on from, and leaves out tensors
// whose size cannot be known. Tensors may then overlap, leave holes and reach over the end of the file. Throws where nothing after could be
// trusted.
Header survey_header(const InputFile& file, std::vector<std::string>& problems);

}  // namespace quern::gguf
