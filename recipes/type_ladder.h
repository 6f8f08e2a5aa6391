#pragma once

#include <cstdint>
#include <span>

#include "formats/types/dtype.h"

namespace quern {

// Whether a type loses far more than others when nothing is known about the inputs of a weight: the types for which llama-quantize
// refuses to work without an importance matrix.
enum class NeedsImportance : uint8_t {
  kNo,
  kYes,
  kInSmallMix,  // only in the mix TYPE_S, where everything is of this type; as part of larger mixes it is used for what matters least
};

// What choosing types needs to know about one of them.
struct TypeStep {
  DType type;
  DType narrower;  // what llama-quantize puts in its place when its blocks do not divide the row; F16 where it would abort
  NeedsImportance needs_importance;
  bool fit_candidate;  // whether `quern fit` may choose it
};

// The types that a weight may be given, by rising size: floats and blocks that a GGUF file can hold.
std::span<const TypeStep> type_ladder() noexcept;

// The step of a type, or nullptr for one that no weight may have (integers, FP8).
const TypeStep* find_step(DType type) noexcept;

}  // namespace quern
