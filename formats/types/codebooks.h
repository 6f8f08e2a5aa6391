#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace quern {

// Values that codes of non-linear and lattice types stand for. Facts of the formats, from ggml-org/ggml src/ggml-common.h.

// Twice the e2m1 value of a 4-bit code (MXFP4, NVFP4). Code 8 is negative zero.
inline constexpr std::array<int8_t, 16> kFp4 = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// IQ4_NL and IQ4_XS.
inline constexpr std::array<int8_t, 16> kIq4nl = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

template <typename T, size_t kRows, size_t kElements>
using Codebook = std::array<std::array<T, kElements>, kRows>;

extern const Codebook<uint8_t, 256, 8> kIq2xxsGrid;  // magnitudes 8, 25, 43
extern const Codebook<uint8_t, 512, 8> kIq2xsGrid;   // magnitudes 8, 25, 43
extern const Codebook<uint8_t, 1024, 8> kIq2sGrid;   // magnitudes 8, 25, 43
extern const Codebook<uint8_t, 256, 4> kIq3xxsGrid;  // magnitudes 4, 12, .. 52, 62
extern const Codebook<uint8_t, 512, 4> kIq3sGrid;    // magnitudes 1, 3, .. 15
extern const Codebook<int8_t, 2048, 8> kIq1Grid;     // -1, 0, 1 (IQ1_S and IQ1_M)

// 7-bit sign code to the signs of 8 elements (bit j set: element j is negative): bit 7 makes the number of minus signs even.
constexpr uint32_t signs_of_code(uint32_t code) noexcept { return code | (static_cast<uint32_t>(std::popcount(code) & 1) << 7); }

}  // namespace quern
