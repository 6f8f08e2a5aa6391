#include <gtest/gtest.h>

#include <hwy/targets.h>
#include <cmath>
#include <random>
#include <vector>

#include "quantize/plain/encode.h"
#include "quantize/plain/encoders.h"

namespace quern {
namespace {

constexpr int64_t kRows = 20;  // more than are encoded together

std::vector<std::byte> encode(DType dtype, const std::vector<float>& x, const std::vector<float>& importance) {
  const DTypeTraits& type = traits(dtype);
  std::vector<std::byte> blocks(x.size() / static_cast<size_t>(type.block_weights) * static_cast<size_t>(type.block_bytes));
  encode_rows(dtype, x, kRows, static_cast<int64_t>(x.size()) / kRows, importance, blocks);
  return blocks;
}

// Published bytes must not depend on the CPU: every set of instructions that this machine has makes the same blocks.
TEST(EncodeRows, MakesTheSameBytesOnEveryCpu) {
  std::mt19937_64 random(8);
  std::student_t_distribution<double> student(5.0);
  std::vector<float> x(kRows * 512);
  std::vector<float> importance(512);
  for (float& value : x) value = static_cast<float>(0.02 * student(random));
  for (float& h : importance) h = static_cast<float>(std::fabs(student(random)));
  const std::vector<DType> types = {
#define QUERN_LIST(name, revision, feedback, bytes) DType::name,
      QUERN_ENCODERS(QUERN_LIST)
#undef QUERN_LIST
  };
  const int64_t all = hwy::SupportedTargets();
  for (const DType dtype : types) {
    const std::vector<std::byte> plain = encode(dtype, x, {});
    const std::vector<std::byte> weighted = encode(dtype, x, importance);
    for (int64_t rest = all; rest != 0; rest &= rest - 1) {
      const int64_t target = rest & -rest;
      hwy::SetSupportedTargetsForTest(target);
      EXPECT_EQ(encode(dtype, x, {}), plain) << name_of(dtype) << " " << hwy::TargetName(target);
      EXPECT_EQ(encode(dtype, x, importance), weighted) << name_of(dtype) << " " << hwy::TargetName(target);
      hwy::SetSupportedTargetsForTest(0);
    }
  }
}

}  // namespace
}  // namespace quern
