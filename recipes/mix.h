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

// Named mixes: which type each tensor gets, by the rules of llama-quantize, applied after the architecture's own keep-list.

struct Mix {
  std::string_view name;       // "Q4_K_M", "lossless"
  int32_t file_type;           // llama_ftype, general.file_type
  DType base;
};

std::span<const Mix> all_mixes();
const Mix* find_mix(std::string_view name) noexcept;  // case-insensitive

struct TypeOverride {
  std::string pattern;  // ECMAScript regular expression, searched in the tensor name
  DType type;
};

struct TypeChoice {
  DType type;
  std::string_view why;  // "keep-list", "mix", "override", "width fallback"
};

// One type per tensor, in the order of `tensors`. metadata supplies head counts, expert count and block count.
// Never fails on widths: falls back as llama-quantize does, and to F16 where it would abort.
std::vector<TypeChoice> choose_types(const Mix& mix, const Metadata& metadata, std::span<const LogicalTensor> tensors,
                                     std::span<const TypeOverride> overrides, bool have_imatrix);

}  // namespace quern
