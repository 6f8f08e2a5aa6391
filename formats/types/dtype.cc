#include "formats/types/dtype.h"

#include <algorithm>
#include <array>

namespace quern {
namespace {

constexpr std::array kTraits = {
#define QUERN_DTYPE_ROW(name, id, weights, bytes) DTypeTraits{DType::name, #name, id, weights, bytes},
    QUERN_DTYPES(QUERN_DTYPE_ROW)
#undef QUERN_DTYPE_ROW
};

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

}  // namespace

const DTypeTraits& traits(DType dtype) noexcept { return kTraits[static_cast<size_t>(dtype)]; }

std::optional<DType> find_dtype_by_gguf_id(int64_t id) noexcept {
  for (const DTypeTraits& t : kTraits) {
    if (t.gguf_id == id && id >= 0) return t.dtype;
  }
  return std::nullopt;
}

std::optional<DType> find_dtype_by_name(std::string_view name) noexcept {
  for (const DTypeTraits& t : kTraits) {
    if (std::ranges::equal(t.name, name, {}, lower, lower)) return t.dtype;
  }
  return std::nullopt;
}

}  // namespace quern
