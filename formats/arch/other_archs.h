#pragma once

#include <string_view>

namespace quern {

// Whether llama.cpp runs the architecture (general.architecture), with a descriptor of ours or without. What llama-quantize leaves alone is
// known of these by name (formats/arch/stems.cc); of any other nothing is.
bool runs_in_llama_cpp(std::string_view gguf_arch) noexcept;

}  // namespace quern
