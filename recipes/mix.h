#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "formats/gguf/metadata.h"
#include "formats/model/model_source.h"
#include "formats/types/dtype.h"

namespace quern {

// Named mixes: which type each tensor gets, by the rules of llama-quantize (ggml-org/llama.cpp src/llama-quant.cpp, August 2026),
// applied after the architecture's own keep-list.

struct Mix {
  std::string_view name;  // "Q4_K_M", "lossless"
  int32_t file_type;      // llama_ftype, general.file_type
  DType base;             // what a tensor gets that no rule mentions
};

// In the order of llama-quantize's list, "lossless" last.
std::span<const Mix> all_mixes();
// Case-insensitive; also "Q2_K", "Q3_K", "Q4_K", "Q5_K" for the _M mixes that llama-quantize means by them.
const Mix* find_mix(std::string_view name) noexcept;

// The mix whose types come from ModelSource::exactness instead of from rules.
bool is_lossless(const Mix& mix) noexcept;

struct TypeChoice {
  DType type;
  std::string_view why;  // "keep-list", "mix", "recipe", "width fallback"
  int64_t rule = -1;     // of the recipe that decided, counted from 0
  DType wanted = type;   // of a width fallback: the type whose blocks do not divide the row
};

// `type`, or what llama-quantize puts in its place when its blocks do not divide the row. Where that does not fit either it is a 16-bit
// float: BF16 for what is stored as BF16, which F16 would round and cut at 65504, and else F16.
DType type_for_width(DType type, int64_t row_length, DType source_type) noexcept;

// What the keep-list says about a tensor, or empty when the mix decides. A mix of F32 promotes what would stay in a 16-bit type.
std::optional<DType> kept_type(const LogicalTensor& tensor, DType base) noexcept;

// One type per tensor, in the order of `tensors`, which are all tensors of the model: rules count layers over them.
// metadata supplies head counts, expert count and block count. Not for the lossless mix.
std::vector<TypeChoice> choose_types(const Mix& mix, const Metadata& metadata, std::span<const LogicalTensor> tensors, bool have_imatrix);

}  // namespace quern
