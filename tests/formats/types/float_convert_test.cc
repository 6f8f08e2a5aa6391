#include "formats/types/float_convert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace quern {
namespace {

// Value of sign, exponent and mantissa fields, computed apart from the code under test.
double ieee_value(uint32_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double sign = (bits >> (exponent_bits + mantissa_bits) & 1u) != 0 ? -1.0 : 1.0;
  const int exponent = static_cast<int>(bits >> mantissa_bits & ((1u << exponent_bits) - 1));
  const double mantissa = bits & ((1u << mantissa_bits) - 1);
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(std::ldexp(1.0, mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

TEST(FloatConvert, DecodesEveryF16CodeExactlyAndBack) {
  for (uint32_t code = 0; code < 0x10000; ++code) {
    const auto bits = static_cast<uint16_t>(code);
    const float value = f16_to_f32(bits);
    if ((code & 0x7C00) != 0x7C00) {
      ASSERT_EQ(static_cast<double>(value), ieee_value(code, 5, 10)) << code;
      ASSERT_EQ(std::signbit(value), (code & 0x8000) != 0) << code;
      ASSERT_EQ(f32_to_f16(value), bits) << code;
    } else if ((code & 0x03FF) == 0) {
      ASSERT_TRUE(std::isinf(value)) << code;
      ASSERT_EQ(f32_to_f16(value), bits) << code;
    } else {
      ASSERT_TRUE(std::isnan(value)) << code;
      ASSERT_EQ(f32_to_f16(value), 0x7E00 | (code & 0x8000)) << code;
    }
  }
}

// Between two neighbours a < b: values below the middle go to a, above to b, the middle to the even code.
TEST(FloatConvert, RoundsToTheNearestF16AndTiesToEven) {
  for (uint32_t code = 0; code < 0x7BFF; ++code) {
    const float below = f16_to_f32(static_cast<uint16_t>(code));
    const float above = f16_to_f32(static_cast<uint16_t>(code + 1));
    const float middle = (below + above) / 2;
    const float infinity = std::numeric_limits<float>::infinity();
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, -infinity)), code);
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, infinity)), code + 1);
    ASSERT_EQ(f32_to_f16(middle), code + (code & 1));
    ASSERT_EQ(f32_to_f16(-middle), 0x8000 + code + (code & 1));
  }
  EXPECT_EQ(f32_to_f16(65519.996f), 0x7BFF);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7C00);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::max()), 0x7C00);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::denorm_min()), 0);
}

TEST(FloatConvert, DecodesEveryBf16CodeExactlyAndBack) {
  for (uint32_t code = 0; code < 0x10000; ++code) {
    const auto bits = static_cast<uint16_t>(code);
    const float value = bf16_to_f32(bits);
    if (std::isnan(value)) {
      ASSERT_EQ(f32_to_bf16(value), code | 0x40) << code;
      continue;
    }
    if (std::isfinite(value)) {
      ASSERT_EQ(static_cast<double>(value), ieee_value(code, 8, 7)) << code;
    }
    ASSERT_EQ(f32_to_bf16(value), bits) << code;
  }
}

TEST(FloatConvert, RoundsToTheNearestBf16AndTiesToEven) {
  for (uint32_t code = 0; code < 0x7F7F; ++code) {
    const uint32_t middle = code << 16 | 0x8000u;
    ASSERT_EQ(f32_to_bf16(std::bit_cast<float>(middle - 1)), code);
    ASSERT_EQ(f32_to_bf16(std::bit_cast<float>(middle + 1)), code + 1);
    ASSERT_EQ(f32_to_bf16(std::bit_cast<float>(middle)), code + (code & 1));
  }
  EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()), 0x7F80);
}

TEST(FloatConvert, DecodesEveryE4M3Code) {
  for (uint32_t code = 0; code < 256; ++code) {
    const float value = e4m3_to_f32(static_cast<uint8_t>(code));
    if ((code & 0x7F) == 0x7F) {
      EXPECT_TRUE(std::isnan(value)) << code;
    } else {
      EXPECT_EQ(static_cast<double>(value), ieee_value(code, 4, 3)) << code;
      EXPECT_EQ(std::signbit(value), code >= 0x80) << code;
    }
  }
  EXPECT_EQ(e4m3_to_f32(0x7E), 448.0f);
}

TEST(FloatConvert, DecodesEveryE5M2Code) {
  for (uint32_t code = 0; code < 256; ++code) {
    const float value = e5m2_to_f32(static_cast<uint8_t>(code));
    const uint32_t magnitude = code & 0x7F;
    if (magnitude > 0x7C) {
      EXPECT_TRUE(std::isnan(value)) << code;
    } else if (magnitude == 0x7C) {
      EXPECT_TRUE(std::isinf(value)) << code;
    } else {
      EXPECT_EQ(static_cast<double>(value), ieee_value(code, 5, 2)) << code;
    }
  }
}

TEST(FloatConvert, DecodesEveryE8M0Code) {
  for (int code = 0; code < 255; ++code) {
    EXPECT_EQ(static_cast<double>(e8m0_to_f32(static_cast<uint8_t>(code))), std::ldexp(1.0, code - 127)) << code;
    EXPECT_EQ(static_cast<double>(e8m0_to_f32_half(static_cast<uint8_t>(code))), std::ldexp(1.0, code - 128)) << code;
  }
  EXPECT_TRUE(std::isnan(e8m0_to_f32(255)));
  EXPECT_EQ(e8m0_to_f32_half(255), 0x1p127f);
}

TEST(FloatConvert, DecodesEveryNvfp4ScaleCodeHalvedAndWithoutSign) {
  for (uint32_t code = 0; code < 256; ++code) {
    const float value = ue4m3_to_f32_half(static_cast<uint8_t>(code));
    const bool zero = code == 0 || code == 0x7F;
    EXPECT_EQ(static_cast<double>(value), zero ? 0.0 : ieee_value(code & 0x7F, 4, 3) / 2) << code;
  }
}

}  // namespace
}  // namespace quern
