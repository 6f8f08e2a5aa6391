#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace quern {

// Every stored representation, one row each: enum name, GGUF type id (-1: only in checkpoints), weights per block, bytes per block.
// Sources: ggml-org/ggml include/ggml.h (enum ggml_type), src/ggml-common.h (block structs); safetensors dtype names.
// Adding a type: a row here, its struct in blocks.h, its decoder in a decode_*-inl.h; docs/adding-a-dtype.md has the other rows.
#define QUERN_DTYPES(X)   \
  X(F32, 0, 1, 4)         \
  X(F16, 1, 1, 2)         \
  X(Q4_0, 2, 32, 18)      \
  X(Q4_1, 3, 32, 20)      \
  X(Q5_0, 6, 32, 22)      \
  X(Q5_1, 7, 32, 24)      \
  X(Q8_0, 8, 32, 34)      \
  X(Q2_K, 10, 256, 84)    \
  X(Q3_K, 11, 256, 110)   \
  X(Q4_K, 12, 256, 144)   \
  X(Q5_K, 13, 256, 176)   \
  X(Q6_K, 14, 256, 210)   \
  X(IQ2_XXS, 16, 256, 66) \
  X(IQ2_XS, 17, 256, 74)  \
  X(IQ3_XXS, 18, 256, 98) \
  X(IQ1_S, 19, 256, 50)   \
  X(IQ4_NL, 20, 32, 18)   \
  X(IQ3_S, 21, 256, 110)  \
  X(IQ2_S, 22, 256, 82)   \
  X(IQ4_XS, 23, 256, 136) \
  X(I8, 24, 1, 1)         \
  X(I16, 25, 1, 2)        \
  X(I32, 26, 1, 4)        \
  X(I64, 27, 1, 8)        \
  X(F64, 28, 1, 8)        \
  X(IQ1_M, 29, 256, 56)   \
  X(BF16, 30, 1, 2)       \
  X(TQ1_0, 34, 256, 54)   \
  X(TQ2_0, 35, 256, 66)   \
  X(MXFP4, 39, 32, 17)    \
  X(NVFP4, 40, 64, 36)    \
  X(Q1_0, 41, 128, 18)    \
  X(Q2_0, 42, 64, 18)     \
  X(U8, -1, 1, 1)         \
  X(BOOL, -1, 1, 1)       \
  X(U16, -1, 1, 2)        \
  X(U32, -1, 1, 4)        \
  X(U64, -1, 1, 8)        \
  X(F8_E4M3, -1, 1, 1)    \
  X(F8_E5M2, -1, 1, 1)    \
  X(F8_E8M0, -1, 1, 1)

enum class DType : uint8_t {
#define QUERN_DTYPE_ENUM(name, id, weights, bytes) name,
  QUERN_DTYPES(QUERN_DTYPE_ENUM)
#undef QUERN_DTYPE_ENUM
};

struct DTypeTraits {
  DType dtype;
  std::string_view name;  // "Q4_K", as ggml and safetensors spell it
  int32_t gguf_id;        // -1: cannot be written to a GGUF file
  int32_t block_weights;  // weights per block, 1 for unblocked types
  int32_t block_bytes;
};

const DTypeTraits& traits(DType dtype) noexcept;
inline std::string_view name_of(DType dtype) noexcept { return traits(dtype).name; }

std::optional<DType> find_dtype_by_gguf_id(int64_t id) noexcept;          // empty for removed and unknown ids
std::optional<DType> find_dtype_by_name(std::string_view name) noexcept;  // case-insensitive ("q4_K", "bf16")

inline double bits_per_weight(DType dtype) noexcept {  // scales and minima included
  return 8.0 * traits(dtype).block_bytes / traits(dtype).block_weights;
}

}  // namespace quern
