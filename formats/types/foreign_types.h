#pragma once

#include <cstdint>
#include <string>

namespace quern {

// Types that a GGUF file may name and that are not in our table (formats/types/dtype.h): those of other programs and those that ggml
// removed. Their names are known, so that a file can be shown and its owner told what reads it; their blocks are not.

// "IQ4_KS (ik_llama.cpp)", "Q4_0_4_4 (removed from ggml)", "id 500 (unknown)".
std::string foreign_type_name(int64_t gguf_id);
// Why a tensor of this type cannot be read, and what can be done: "type IQ4_KS (id 144) is ik_llama.cpp's, ...".
std::string why_not_read(int64_t gguf_id);

}  // namespace quern
