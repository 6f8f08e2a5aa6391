#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/dtype.h"
#include "formats/metadata.h"
#include "formats/model_source.h"

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

struct TypeOverride {
  std::string pattern;  // ECMAScript regular expression, searched in the tensor name
  DType type;
};

struct TypeChoice {
  DType type;
  std::string_view why;  // "keep-list", "override", "mix", "width fallback"
};

// What the keep-list says about a tensor, or empty when the mix decides. A mix of F32 promotes what would stay in a 16-bit type.
std::optional<DType> kept_type(const LogicalTensor& tensor, DType base) noexcept;

// One type per tensor, in the order of `tensors`, which are all tensors of the model: rules count layers over them.
// metadata supplies head counts, expert count and block count. An override changes the tensors it matches and, unlike in
// llama-quantize, nothing else: layers are counted as if it were not there. Not for the lossless mix.
// Never fails on widths: falls back as llama-quantize does, and to F16 where it would abort. Throws kUsage on a bad pattern.
std::vector<TypeChoice> choose_types(const Mix& mix, const Metadata& metadata, std::span<const LogicalTensor> tensors,
                                     std::span<const TypeOverride> overrides, bool have_imatrix);

}  // namespace quern
