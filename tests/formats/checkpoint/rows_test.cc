#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <bit>
#include <thread>

#include "formats/types/decode.h"
#include "tests/formats/checkpoint_builder.h"

namespace quern::test {
namespace {

using ::testing::HasSubstr;

// Every transform over every encoding that it can meet, with sizes that are no multiples of anything.
struct Fixture {
  CheckpointBuilder model;
  ArchRules rules;

  TensorRule& add(TensorRule one) {
    rules.rules.push_back(std::move(one));
    return rules.rules.back();
  }
};

void add_plain(Fixture& f) {
  f.model.add_float("bf16", DType::BF16, {7, 33}).add_float("f16", DType::F16, {3, 5}).add_float("f32", DType::F32, {4});
  f.model.add_float("f64", DType::F64, {2, 3}).add_float("e5m2", DType::F8_E5M2, {3, 40});
  f.add(rule("bf16", "bf16", {7, 33}));
  f.add(rule("f16", "f16", {3, 5}));
  f.add(rule("f32", "f32", {4}));
  f.add(rule("f64", "f64", {2, 3}));
  f.add(rule("e5m2", "e5m2", {3, 40}));
}

void add_permuted(Fixture& f) {
  f.model.add_float("q", DType::BF16, {24, 9}).add_float("q_bias", DType::F32, {24});
  f.model.add_fp8("q8.weight", "q8.weight_scale_inv", DType::F32, {384, 150}, true);
  f.add(rule("q", "q", {24, 9}, Transform::kPermuteHeads)).n_head = 3;
  f.add(rule("q_bias", "q_bias", {24}, Transform::kPermuteHeads)).n_head = 3;
  f.add(rule("q8.weight", "q8", {384, 150}, Transform::kPermuteHeads)).n_head = 4;  // heads of 96 rows cross blocks of 128
}

void add_split(Fixture& f, const std::string& stored, int64_t n_head, int64_t nope, int64_t value, int64_t rank) {
  TensorRule& key = f.add(rule(stored, stored + "_k", {n_head, rank, nope}, Transform::kSplitKeyB));
  key.n_head = n_head;
  key.nope_dim = nope;
  key.value_dim = value;
  TensorRule& values = f.add(rule(stored, stored + "_v", {n_head, value, rank}, Transform::kSplitValueB));
  values.n_head = n_head;
  values.nope_dim = nope;
  values.value_dim = value;
}

void add_latent(Fixture& f) {
  f.model.add_float("kv_b", DType::BF16, {3 * 9, 11});
  f.model.add_fp8("kv_b8.weight", "kv_b8.weight_scale_inv", DType::F32, {4 * 150, 130}, true);
  add_split(f, "kv_b", 3, 5, 4, 11);
  add_split(f, "kv_b8.weight", 4, 100, 50, 130);
}

void add_stacks(Fixture& f) {
  for (int e = 0; e < 11; ++e) {
    const std::string expert = "experts." + std::to_string(e);
    f.model.add_float(expert + ".up", DType::BF16, {5, 8}).add_float(expert + ".bias", DType::F32, {6});
    f.model.add_fp8(expert + ".w8.weight", expert + ".w8.scale", DType::F8_E8M0, {130, 129});
    f.model.add_fp4(expert + ".w4.weight", expert + ".w4.scale", DType::I8, DType::F8_E8M0, {3, 96});
  }
  f.add(rule("experts.{e}.up", "up_exps", {11, 5, 8}));
  f.add(rule("experts.{e}.bias", "bias_exps", {11, 6}));
  f.add(rule("experts.{e}.w8.weight", "w8_exps", {11, 130, 129}));
  f.add(rule("experts.{e}.w4.weight", "w4_exps", {11, 3, 96}));
  f.model.add_fp8("stack8", "stack8_scale_inv", DType::BF16, {3, 200, 140});
  f.add(rule("stack8", "stack8", {3, 200, 140}, Transform::kStoredStack));
}

void add_fused(Fixture& f) {
  f.model.add_float("gate_up", DType::BF16, {3, 14, 6}).add_float("gate_up_bias", DType::F32, {3, 14});
  f.model.add_fp4("oss_blocks", "oss_scales", DType::U8, DType::U8, {3, 10, 64}).add_float("oss_bias", DType::BF16, {3, 10});
  f.model.add_fp8("fused8", "fused8_scale_inv", DType::F32, {2, 300, 129}, true);
  f.add(rule("gate_up", "gate", {3, 7, 6}, Transform::kFirstHalfRows));
  f.add(rule("gate_up", "up", {3, 7, 6}, Transform::kSecondHalfRows));
  f.add(rule("gate_up_bias", "gate_bias", {3, 7}, Transform::kFirstHalfRows));
  f.add(rule("gate_up_bias", "up_bias", {3, 7}, Transform::kSecondHalfRows));
  f.add(rule("oss_blocks", "oss_gate", {3, 5, 64}, Transform::kEvenRows));
  f.add(rule("oss_blocks", "oss_up", {3, 5, 64}, Transform::kOddRows));
  f.add(rule("oss_bias", "oss_gate_bias", {3, 5}, Transform::kEvenRows));
  f.add(rule("oss_bias", "oss_up_bias", {3, 5}, Transform::kOddRows));
  f.add(rule("fused8", "fused8_gate", {2, 150, 129}, Transform::kFirstHalfRows));
  f.add(rule("fused8", "fused8_up", {2, 150, 129}, Transform::kSecondHalfRows));
}

void add_rest(Fixture& f) {
  f.model.add_fp8("e_proj.weight", "e_proj.scale", DType::U8, {130, 70}).add_fp8("h_proj.weight", "h_proj.scale", DType::U8, {130, 70});
  f.add(rule("e_proj.weight|h_proj.weight", "eh_proj", {130, 140}, Transform::kConcatColumns));
  f.model.add_fp8("kv_a.weight", "kv_a.weight_scale_inv", DType::F32, {576, 257}, true);
  f.add(rule("kv_a.weight", "kv_a", {576, 257}));
  f.add(rule("", "rope_freqs", {4}, Transform::kGenerated)).generated = {1, 2, 3, 4.5F};
}

void add_everything(Fixture& f) {
  for (const auto add : {add_plain, add_permuted, add_latent, add_stacks, add_fused, add_rest}) add(f);
}

void expect_same_bits(std::span<const float> actual, std::span<const float> expected, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(actual[i]), std::bit_cast<uint32_t>(expected[i])) << what << " element " << i;
  }
}

std::vector<float> in_chunks(const ModelSource& source, size_t tensor, int64_t chunk) {
  const int64_t n_rows = source.tensors()[tensor].shape.n_rows();
  std::vector<float> all;
  for (int64_t first = 0; first < n_rows; first += chunk) {
    const std::vector<float> part = decode_chunk(source, tensor, first, std::min(chunk, n_rows - first));
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

TEST(CheckpointRows, DecodeEveryTransformInChunksOfAnySizeAsTheWholeTensor) {
  Fixture f;
  add_everything(f);
  const CheckpointSource source = open_source(f.model, f.rules);
  ASSERT_EQ(source.tensors().size(), f.rules.rules.size());
  for (size_t t = 0; t < source.tensors().size(); ++t) {
    const LogicalTensor& tensor = source.tensors()[t];
    const std::vector<float> expected = naive_tensor(f.model, f.rules.rules[t]);
    for (const int64_t chunk : {int64_t{1}, int64_t{2}, int64_t{3}, int64_t{7}, int64_t{37}, tensor.row_alignment, tensor.shape.n_rows()}) {
      expect_same_bits(in_chunks(source, t, chunk), expected, tensor.name + " in chunks of " + std::to_string(chunk));
    }
  }
}

TEST(CheckpointRows, FillNoMoreThanTheBoundThatTheyState) {
  Fixture f;
  add_everything(f);
  const CheckpointSource source = open_source(f.model, f.rules);
  RawRows raw;
  for (size_t t = 0; t < source.tensors().size(); ++t) {
    const int64_t n_rows = source.tensors()[t].shape.n_rows();
    for (const int64_t n : {int64_t{1}, int64_t{2}, int64_t{5}, int64_t{64}, n_rows}) {
      for (int64_t first = 0; first + n <= n_rows; ++first) {
        source.fetch(t, first, n, raw);
        ASSERT_LE(raw.bytes.size(), source.raw_bytes(t, n)) << source.tensors()[t].name << " " << first << " " << n;
      }
    }
  }
}

// Floats are copied as they are, FP4 becomes MXFP4; the copy decodes to the same values as decode gives.
TEST(CheckpointRows, CopyWhatNeedsNoFloats) {
  Fixture f;
  add_everything(f);
  const CheckpointSource source = open_source(f.model, f.rules);
  int n_copied = 0;
  for (size_t t = 0; t < source.tensors().size(); ++t) {
    const LogicalTensor& tensor = source.tensors()[t];
    const DType type = tensor.source_type;
    if (!source.can_copy(t, type)) continue;
    ++n_copied;
    const std::vector<float> expected = naive_tensor(f.model, f.rules.rules[t]);
    for (const int64_t chunk : {int64_t{1}, int64_t{3}, tensor.shape.n_rows()}) {
      Bytes copied;
      for (int64_t first = 0; first < tensor.shape.n_rows(); first += chunk) {
        RawRows raw;
        source.fetch(t, first, std::min(chunk, tensor.shape.n_rows() - first), raw);
        Bytes part(row_size_bytes(type, tensor.shape.row_length()) * static_cast<uint64_t>(raw.n_rows));
        source.copy(raw, type, part);
        append(copied, part);
      }
      std::vector<float> decoded(expected.size());
      decode_blocks(type, copied, decoded);
      expect_same_bits(decoded, expected, tensor.name);
    }
  }
  EXPECT_EQ(n_copied, 18);
}

TEST(CheckpointRows, ReadEveryStoredByteOnceInAlignedChunks) {
  Fixture f;
  f.model.add_float("a", DType::BF16, {24, 10}).add_fp8("q.weight", "q.scale", DType::F8_E8M0, {512, 300});
  f.model.add_fp8("kv_b.weight", "kv_b.weight_scale_inv", DType::F32, {4 * 256, 64}, true);
  f.add(rule("a", "a", {24, 10}));
  f.add(rule("q.weight", "q", {512, 300}, Transform::kPermuteHeads)).n_head = 8;  // two heads share a row of blocks
  add_split(f, "kv_b.weight", 4, 128, 128, 64);
  for (int e = 0; e < 3; ++e) {
    const std::string expert = "experts." + std::to_string(e);
    f.model.add_fp8(expert + ".up.weight", expert + ".up.weight_scale_inv", DType::F32, {256, 192}, true);
    f.model.add_fp4(expert + ".w4.weight", expert + ".w4.scale", DType::I8, DType::F8_E8M0, {30, 96});
  }
  f.add(rule("experts.{e}.up.weight", "up", {3, 256, 192}));
  f.add(rule("experts.{e}.w4.weight", "w4", {3, 30, 96}));

  const CheckpointSource source = open_source(f.model, f.rules);
  uint64_t sum = 0;
  for (size_t t = 0; t < source.tensors().size(); ++t) {
    const uint64_t before = source.bytes_read();
    in_chunks(source, t, source.tensors()[t].row_alignment);
    EXPECT_EQ(source.bytes_read() - before, source.tensors()[t].source_bytes) << source.tensors()[t].name;
    sum += source.tensors()[t].source_bytes;
  }
  EXPECT_EQ(source.bytes_read(), f.model.file().data_bytes());
  EXPECT_EQ(sum, f.model.file().data_bytes());
}

TEST(CheckpointRows, PermuteHeadsInTheOrderOfTheWorkedExample) {
  Fixture f;
  std::vector<float> rows(16);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i);
  f.model.add_raw("q", DType::F32, {16, 1}, floats_to_bytes(rows));
  f.add(rule("q", "q", {16, 1}, Transform::kPermuteHeads)).n_head = 2;
  const CheckpointSource source = open_source(f.model, f.rules);
  EXPECT_EQ(decode_chunk(source, 0, 0, 16), (std::vector<float>{0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15}));
}

TEST(CheckpointRows, SplitLatentKeysAndValuesAsInTheWorkedExample) {
  Fixture f;
  std::vector<float> values;
  for (int row = 0; row < 6; ++row) {
    for (int col = 0; col < 3; ++col) values.push_back(static_cast<float>(10 * row + col));
  }
  f.model.add_raw("kv_b", DType::F32, {6, 3}, floats_to_bytes(values));
  add_split(f, "kv_b", 2, 2, 1, 3);
  const CheckpointSource source = open_source(f.model, f.rules);
  EXPECT_EQ(decode_chunk(source, 0, 0, 6), (std::vector<float>{0, 10, 1, 11, 2, 12, 30, 40, 31, 41, 32, 42}));
  EXPECT_EQ(decode_chunk(source, 1, 0, 2), (std::vector<float>{20, 21, 22, 50, 51, 52}));
}

TEST(CheckpointRows, RepackFp4AsInTheWorkedExamples) {
  Fixture f;
  const auto bytes = [](std::initializer_list<int> list) {
    Bytes result;
    for (const int value : list) result.push_back(static_cast<std::byte>(value));
    return result;
  };
  f.model.add_raw("a.weight", DType::I8, {1, 16},
                  bytes({0x05, 0x16, 0x27, 0x38, 0x49, 0x5a, 0x6b, 0x7c, 0x8d, 0x9e, 0xaf, 0xc0, 0xd1, 0xe2, 0xf3, 0x04}));
  f.model.add_raw("a.scale", DType::F8_E8M0, {1, 1}, bytes({121}));
  f.model.add_raw("b_blocks", DType::U8, {1, 1, 1, 16},
                  bytes({0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f}));
  f.model.add_raw("b_scales", DType::U8, {1, 1, 1}, bytes({127}));
  f.add(rule("a.weight", "a", {1, 32}));
  f.add(rule("b_blocks", "b", {1, 1, 32}, Transform::kStoredStack));
  const CheckpointSource source = open_source(f.model, f.rules);
  const auto copied = [&](size_t tensor) {
    RawRows raw;
    source.fetch(tensor, 0, 1, raw);
    Bytes block(17);
    source.copy(raw, DType::MXFP4, block);
    return block;
  };
  EXPECT_EQ(copied(0), bytes({0x79, 0xd5, 0x80, 0xe6, 0x91, 0xf7, 0xa2, 0x08, 0xc3, 0x19, 0xd4, 0x2a, 0xe5, 0x3b, 0xf6, 0x4c, 0x07}));
  EXPECT_EQ(copied(1), bytes({0x7f, 0x80, 0x11, 0x91, 0x11, 0xa2, 0x11, 0xb3, 0x11, 0xc4, 0x11, 0xd5, 0x11, 0xe6, 0x11, 0xf7, 0x11}));
  const std::vector<float> a = decode_chunk(source, 0, 0, 1);
  EXPECT_EQ(a[0], 0.046875F);
  EXPECT_EQ(a[16], -0.046875F);
  EXPECT_EQ(a[30], 0.03125F);
}

TEST(CheckpointRows, ScaleRaggedFp8BlocksAsInTheWorkedExample) {
  Fixture f;
  Bytes codes;
  for (int i = 0; i < 130; ++i) {
    for (int j = 0; j < 200; ++j) codes.push_back(static_cast<std::byte>((7 * i + 3 * j) % 120));
  }
  f.model.add_raw("w.weight", DType::F8_E4M3, {130, 200}, codes);
  f.model.add_raw("w.scale", DType::F8_E8M0, {2, 2}, {std::byte{120}, std::byte{121}, std::byte{118}, std::byte{130}});
  f.add(rule("w.weight", "w", {130, 200}));
  const CheckpointSource source = open_source(f.model, f.rules);
  const std::vector<float> w = decode_chunk(source, 0, 0, 130);
  EXPECT_EQ(w[127], 0.000396728515625F);
  EXPECT_EQ(w[128], 0.0009765625F);
  EXPECT_EQ(w[128 * 200], 0.001953125F);
  EXPECT_EQ(w[129 * 200 + 128], 120.0F);
  double sum = 0;
  for (const float value : w) sum += value;
  EXPECT_EQ(sum, 37583.985889434814);
  EXPECT_EQ(source.exactness(0).type, DType::BF16);
}

TEST(CheckpointRows, TakeTheBlockSizeFromTheConfig) {
  Fixture f;
  f.model.block_rows = 32;
  f.model.block_cols = 64;
  f.model.add_fp8("w.weight", "w.scale", DType::F8_E8M0, {70, 130});
  f.add(rule("w.weight", "w", {70, 130}));
  const CheckpointSource source = open_source(f.model, f.rules);
  EXPECT_EQ(source.tensors()[0].row_alignment, 32);
  expect_same_bits(in_chunks(source, 0, 9), naive_tensor(f.model, f.rules.rules[0]), "w");
}

TEST(CheckpointRows, NameTensorAndRowOfANonfiniteWeight) {
  const auto message = [](auto add_tensor) {
    Fixture f;
    add_tensor(f.model);
    f.add(rule("w.weight", "blk.0.w", {3, 32}));
    const CheckpointSource source = open_source(f.model, f.rules);
    return error_of([&] { decode_chunk(source, 0, 1, 2); });
  };
  constexpr std::string_view kWhere = "tensor 'blk.0.w': row 2 has a NaN or infinite weight (stored in 'w.weight', row 2)";
  const auto last = [](Bytes bytes, auto value) {
    std::memcpy(bytes.data() + bytes.size() - sizeof value, &value, sizeof value);
    return bytes;
  };
  EXPECT_THAT(message([&](CheckpointBuilder& m) {
                m.add_raw("w.weight", DType::BF16, {3, 32}, last(Bytes(192), uint16_t{0xFFC0}));
              }),
              HasSubstr(kWhere));
  EXPECT_THAT(message([&](CheckpointBuilder& m) {
                m.add_raw("w.weight", DType::F16, {3, 32}, last(Bytes(192), uint16_t{0x7C00}));
              }),
              HasSubstr(kWhere));
  EXPECT_THAT(message([&](CheckpointBuilder& m) {
                m.add_raw("w.weight", DType::F32, {3, 32}, last(Bytes(384), 0x7F800001U));
              }),
              HasSubstr(kWhere));
  EXPECT_THAT(message([&](CheckpointBuilder& m) {
                m.add_raw("w.weight", DType::F64, {3, 32}, last(Bytes(768), 1e300));
              }),
              HasSubstr(kWhere));
  for (const uint8_t code : {uint8_t{0x7F}, uint8_t{0xFF}}) {
    EXPECT_THAT(message([&](CheckpointBuilder& m) {
                  m.add_raw("w.weight", DType::F8_E4M3, {3, 32}, last(Bytes(96), code));
                  m.add_raw("w.scale", DType::F8_E8M0, {1, 1}, Bytes(1, std::byte{127}));
                }),
                HasSubstr(kWhere));
  }
  EXPECT_THAT(message([&](CheckpointBuilder& m) {
                m.add_raw("w.weight", DType::I8, {3, 16}, Bytes(48));
                m.add_raw("w.scale", DType::F8_E8M0, {3, 1}, last(Bytes(3), uint8_t{255}));
              }),
              HasSubstr(kWhere));
}

TEST(CheckpointRows, RefuseToCopyScalesThatOverflow) {
  for (const int scale : {253, 255}) {
    Fixture f;
    f.model.add_raw("w.weight", DType::I8, {1, 16}, Bytes(16));
    f.model.add_raw("w.scale", DType::F8_E8M0, {1, 1}, Bytes(1, static_cast<std::byte>(scale)));
    f.add(rule("w.weight", "w", {1, 32}));
    const CheckpointSource source = open_source(f.model, f.rules);
    RawRows raw;
    source.fetch(0, 0, 1, raw);
    Bytes block(17);
    EXPECT_THAT(error_of([&] { source.copy(raw, DType::MXFP4, block); }), HasSubstr("tensor 'w': row 0 has an e8m0 scale above"));
  }
}

TEST(CheckpointRows, NarrowTablesAndNameTheRowThatDoesNotFit) {
  Fixture f;
  f.model.add_i64("good", {2, 2}, {1, -5, 2147483647, -2147483648});
  f.model.add_i64("bad", {2, 2}, {1, 2, 2147483648, 4});
  f.add(rule("good", "good", {2, 2})).keep = Keep::kInteger;
  f.add(rule("bad", "bad", {2, 2})).keep = Keep::kInteger;
  const CheckpointSource source = open_source(f.model, f.rules);
  EXPECT_EQ(source.tensors()[0].source_type, DType::I32);
  EXPECT_EQ(source.exactness(0).type, DType::I32);
  RawRows raw;
  Bytes out(16);
  source.fetch(0, 0, 2, raw);
  source.copy(raw, DType::I32, out);
  EXPECT_EQ(out, values_to_bytes<int32_t>({1, -5, 2147483647, -2147483647 - 1}));
  source.fetch(1, 0, 2, raw);
  EXPECT_THAT(error_of([&] { source.copy(raw, DType::I32, out); }),
              HasSubstr("tensor 'bad': row 1 has a value outside the range of I32 (stored in 'bad', row 1)"));
}

TEST(CheckpointRows, AreExactInBf16OnlyWithScalesThatArePowersOfTwoInRange) {
  const auto exact_type = [](DType scale_type, const Bytes& scale) {
    Fixture f;
    f.model.add_raw("w.weight", DType::F8_E4M3, {2, 2}, Bytes(4));
    f.model.add_raw("w.scale", scale_type, {1, 1}, scale);
    f.add(rule("w.weight", "w", {2, 2}));
    const CheckpointSource source = open_source(f.model, f.rules);
    const Exactness exact = source.exactness(0);
    EXPECT_EQ(exact.reason.empty(), exact.type.has_value());
    if (!exact.type) {
      EXPECT_THAT(exact.reason, HasSubstr("2^-8"));
    }
    return exact.type;
  };
  for (int byte = 0; byte < 256; ++byte) {
    const bool in_range = byte >= 3 && byte <= 246;
    EXPECT_EQ(exact_type(DType::F8_E8M0, Bytes(1, static_cast<std::byte>(byte))), in_range ? std::optional(DType::BF16) : std::nullopt);
  }
  EXPECT_EQ(exact_type(DType::F32, floats_to_bytes({0.25F})), DType::BF16);
  EXPECT_EQ(exact_type(DType::F32, floats_to_bytes({0.3F})), std::nullopt);
  EXPECT_EQ(exact_type(DType::F32, floats_to_bytes({-1.0F})), std::nullopt);
  EXPECT_EQ(exact_type(DType::F32, floats_to_bytes({0.0F})), std::nullopt);
}

// Brute force over all codes: what exactness claims about BF16 is true, at the ends of the range and inside it.
TEST(CheckpointRows, KeepEveryFp8CodeInBf16WhereExactnessSaysSo) {
  for (const uint8_t byte : {uint8_t{3}, uint8_t{120}, uint8_t{246}}) {
    for (int code = 0; code < 256; ++code) {
      if ((code & 0x7F) == 0x7F) continue;
      const float value = e4m3_to_f32(static_cast<uint8_t>(code)) * e8m0_to_f32(byte);
      EXPECT_EQ(bf16_to_f32(f32_to_bf16(value)), value) << int{byte} << " " << code;
    }
  }
  EXPECT_NE(bf16_to_f32(f32_to_bf16(e4m3_to_f32(1) * e8m0_to_f32(2))), e4m3_to_f32(1) * e8m0_to_f32(2));
}

TEST(CheckpointRows, SayWhyF64IsNotExact) {
  Fixture f;
  f.model.add_float("w", DType::F64, {2, 2});
  f.add(rule("w", "w", {2, 2}));
  const Exactness exact = open_source(f.model, f.rules).exactness(0);
  EXPECT_FALSE(exact.type.has_value());
  EXPECT_THAT(exact.reason, HasSubstr("'w' is F64"));
}

TEST(CheckpointRows, AreReadByManyThreadsAtOnce) {
  Fixture f;
  add_everything(f);
  const CheckpointSource source = open_source(f.model, f.rules);
  std::atomic<int> n_wrong = 0;
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (size_t t = 0; t < source.tensors().size(); ++t) {
        if (in_chunks(source, t, 5) != naive_tensor(f.model, f.rules.rules[t])) ++n_wrong;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(n_wrong, 0);
}

}  // namespace
}  // namespace quern::test
