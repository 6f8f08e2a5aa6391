#include "formats/types/decode.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>
#include <vector>

#include "formats/base/error.h"
#include "formats/types/blocks.h"
#include "formats/types/codebooks.h"
#include "formats/types/float_convert.h"
#include "tests/formats/on_every_target.h"

namespace quern {
namespace {

const std::filesystem::path kGolden = std::filesystem::path(QUERN_TEST_DATA) / "golden-blocks";

std::vector<std::byte> read_bytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  std::vector<std::byte> bytes(std::filesystem::file_size(path));
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

std::vector<DType> types_with_golden_blocks() {
  return {DType::F16, DType::BF16,
#define QUERN_LIST(name) DType::name,
          QUERN_BLOCK_TYPES(QUERN_LIST)
#undef QUERN_LIST
  };
}

// Variants of the type under test in index.json.
nlohmann::json golden_variants(DType dtype) {
  const nlohmann::json index = nlohmann::json::parse(std::ifstream(kGolden / "index.json"));
  return index.at("types").at(std::string(name_of(dtype))).at("variants");
}

class DecodeGolden : public testing::TestWithParam<DType> {};

// Golden blocks: encoder output without and with importance, and random bytes, with what ggml decodes them to.
TEST_P(DecodeGolden, MatchesGgmlBitForBit) {
  const nlohmann::json variants = golden_variants(GetParam());
  for (const auto& item : variants.items()) {
    const std::string& variant = item.key();
    const nlohmann::json& files = item.value();
    const std::vector<std::byte> blocks = read_bytes(kGolden / files.at("bin").get<std::string>());
    const std::vector<std::byte> expected = read_bytes(kGolden / files.at("dequant").get<std::string>());
    on_every_target([&] {
      std::vector<float> decoded(expected.size() / sizeof(float));
      decode_blocks(GetParam(), blocks, decoded);
      for (size_t i = 0; i < decoded.size(); ++i) {
        uint32_t got = 0;
        uint32_t want = 0;
        std::memcpy(&got, &decoded[i], sizeof got);
        std::memcpy(&want, expected.data() + i * sizeof want, sizeof want);
        ASSERT_EQ(got, want) << variant << " element " << i;
      }
    });
    EXPECT_EQ(find_nonfinite_block(GetParam(), blocks), -1) << variant;
  }
}

// Blocks start at any byte of a file.
TEST_P(DecodeGolden, NeedsNoAlignment) {
  const nlohmann::json variants = golden_variants(GetParam());
  for (const auto& [variant, files] : variants.items()) {
    std::vector<std::byte> shifted = read_bytes(kGolden / files.at("bin").get<std::string>());
    shifted.insert(shifted.begin(), std::byte{0});
    const std::vector<std::byte> expected = read_bytes(kGolden / files.at("dequant").get<std::string>());
    std::vector<float> decoded(expected.size() / sizeof(float));
    decode_blocks(GetParam(), std::span(shifted).subspan(1), decoded);
    EXPECT_EQ(std::memcmp(decoded.data(), expected.data(), expected.size()), 0) << variant;
  }
}

INSTANTIATE_TEST_SUITE_P(EveryType, DecodeGolden, testing::ValuesIn(types_with_golden_blocks()),
                         [](const auto& type) { return std::string(name_of(type.param)); });

TEST(Decode, RefusesIntegers) {
  const std::byte bytes[8] = {};
  float out[8];
  EXPECT_THROW(decode_blocks(DType::I8, bytes, out), Error);
  EXPECT_THROW(decode_blocks(DType::I64, bytes, std::span(out, 1)), Error);
}

TEST(Decode, DecodesPlainFloatsAndFp8ElementByElement) {
  const float values[] = {1.5f, -0.0f, 3e38f};
  float out[3];
  decode_blocks(DType::F32, std::as_bytes(std::span(values)), out);
  EXPECT_EQ(std::memcmp(values, out, sizeof out), 0);
  std::array<uint8_t, 256> codes;
  std::iota(codes.begin(), codes.end(), uint8_t{0});
  on_every_target([&] {
    const std::pair<DType, float (*)(uint8_t)> conversions[] = {
        {DType::F8_E4M3, e4m3_to_f32}, {DType::F8_E5M2, e5m2_to_f32}, {DType::F8_E8M0, e8m0_to_f32}};
    for (const auto& [type, convert] : conversions) {
      std::array<float, 256> decoded;
      decode_blocks(type, std::as_bytes(std::span(codes)), decoded);
      for (size_t i = 0; i < codes.size(); ++i) {
        EXPECT_EQ(std::bit_cast<uint32_t>(decoded[i]), std::bit_cast<uint32_t>(convert(codes[i]))) << name_of(type) << " code " << i;
      }
    }
  });
}

template <typename Block>
int64_t nonfinite_in_third_block(DType dtype, void (*spoil)(Block&)) {
  Block blocks[4] = {};
  spoil(blocks[2]);
  return find_nonfinite_block(dtype, std::as_bytes(std::span(blocks)));
}

TEST(FindNonfiniteBlock, FindsEveryKindOfScale) {
  EXPECT_EQ(nonfinite_in_third_block<BlockQ4_0>(DType::Q4_0, [](auto& b) { b.d = 0x7C00; }), 2);
  EXPECT_EQ(nonfinite_in_third_block<BlockQ4_1>(DType::Q4_1, [](auto& b) { b.m = 0xFE00; }), 2);
  EXPECT_EQ(nonfinite_in_third_block<BlockQ2_K>(DType::Q2_K, [](auto& b) { b.dmin = 0xFC00; }), 2);
  EXPECT_EQ(nonfinite_in_third_block<BlockMXFP4>(DType::MXFP4, [](auto& b) { b.e = 255; }), 2);
  EXPECT_EQ(nonfinite_in_third_block<BlockIQ1_M>(DType::IQ1_M,
                                                 [](auto& b) {
                                                   b.scales[2] = 0xC000;
                                                   b.scales[3] = 0x7000;
                                                 }),
            2);
  EXPECT_EQ(nonfinite_in_third_block<BlockNVFP4>(DType::NVFP4, [](auto& b) { b.s[0] = 0x7F; }), -1);
}

TEST(FindNonfiniteBlock, FindsEveryKindOfValue) {
  const uint16_t f16[] = {0x7BFF, 0x7C00};
  const uint16_t bf16[] = {0x7F7F, 0x7FC0};
  const uint8_t e4m3[] = {0x7E, 0xFF};
  const uint8_t e5m2[] = {0x7B, 0x7C};
  const uint8_t e8m0[] = {254, 255};
  EXPECT_EQ(find_nonfinite_block(DType::F16, std::as_bytes(std::span(f16))), 1);
  EXPECT_EQ(find_nonfinite_block(DType::BF16, std::as_bytes(std::span(bf16))), 1);
  EXPECT_EQ(find_nonfinite_block(DType::F8_E4M3, std::as_bytes(std::span(e4m3))), 1);
  EXPECT_EQ(find_nonfinite_block(DType::F8_E5M2, std::as_bytes(std::span(e5m2))), 1);
  EXPECT_EQ(find_nonfinite_block(DType::F8_E8M0, std::as_bytes(std::span(e8m0))), 1);
  EXPECT_EQ(find_nonfinite_block(DType::I8, std::as_bytes(std::span(e8m0))), -1);
}

TEST(PackedScales, SurviveEveryPatternOfBits) {
  for (uint32_t seed = 0; seed < 64; ++seed) {
    uint8_t scales[16];
    for (uint32_t b = 0; b < 16; ++b) scales[b] = static_cast<uint8_t>((seed * 37 + b * 11) & 63);
    uint8_t packed[12];
    uint8_t unpacked[16];
    pack_scales_q3_k(scales, packed);
    unpack_scales_q3_k(packed, unpacked);
    EXPECT_EQ(std::memcmp(scales, unpacked, 16), 0);
    pack_scales_q4_k(scales, scales + 8, packed);
    unpack_scales_q4_k(packed, unpacked, unpacked + 8);
    EXPECT_EQ(std::memcmp(scales, unpacked, 16), 0);
  }
}

// Rank order of the rows is part of how the books were made; a slip in one number would most likely break it.
template <typename Book>
bool strictly_ascending(const Book& book) {
  for (size_t i = 1; i < book.size(); ++i) {
    if (!std::lexicographical_compare(book[i - 1].rbegin(), book[i - 1].rend(), book[i].rbegin(), book[i].rend())) return false;
  }
  return true;
}

TEST(Codebooks, RowsAscend) {
  EXPECT_TRUE(strictly_ascending(kIq2xxsGrid));
  EXPECT_TRUE(strictly_ascending(kIq2xsGrid));
  EXPECT_TRUE(strictly_ascending(kIq2sGrid));
  EXPECT_TRUE(strictly_ascending(kIq3xxsGrid));
  EXPECT_TRUE(strictly_ascending(kIq3sGrid));
  EXPECT_TRUE(strictly_ascending(kIq1Grid));
}

TEST(Codebooks, SignCodesHaveEvenParity) {
  for (uint32_t code = 0; code < 128; ++code) {
    EXPECT_EQ(std::popcount(signs_of_code(code)) % 2, 0);
    EXPECT_EQ(signs_of_code(code) & 127, code);
  }
}

}  // namespace
}  // namespace quern
