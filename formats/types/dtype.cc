#include "formats/types/dtype.h"

#include <array>

#include "formats/base/nearest.h"

namespace quern {
namespace {

constexpr std::array kTraits = {
#define QUERN_DTYPE_ROW(name, id, weights, bytes) DTypeTraits{DType::name, #name, id, weights, bytes},
    QUERN_DTYPES(QUERN_DTYPE_ROW)
#undef QUERN_DTYPE_ROW
};

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
    if (same_name(t.name, name)) return t.dtype;
  }
  return std::nullopt;
}

}  // namespace quern
