#include "recipes/type_ladder.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace quern {
namespace {

TEST(TypeLadder, HasEveryTypeThatAWeightInAGgufFileMayHave) {
  for (int id = 0; id < 64; ++id) {
    const std::optional<DType> type = find_dtype_by_gguf_id(id);
    if (!type) continue;
    const bool weights = traits(*type).block_weights > 1 || *type == DType::F32 || *type == DType::F16 || *type == DType::BF16;
    EXPECT_EQ(std::ranges::count(type_ladder(), *type, &TypeStep::type), weights ? 1 : 0) << name_of(*type);
    EXPECT_EQ(find_step(*type) != nullptr, weights) << name_of(*type);
  }
  EXPECT_EQ(find_step(DType::F8_E4M3), nullptr);
}

TEST(TypeLadder, RisesInSize) {
  EXPECT_TRUE(std::ranges::is_sorted(type_ladder(), {}, [](const TypeStep& step) { return bits_per_weight(step.type); }));
}

// What stands in for a type holds at least as much and fits rows that the type does not.
TEST(TypeLadder, NarrowerTypesHaveShorterBlocks) {
  for (const TypeStep& step : type_ladder()) {
    if (traits(step.type).block_weights == 1) continue;
    EXPECT_LT(traits(step.narrower).block_weights, traits(step.type).block_weights) << name_of(step.type);
    EXPECT_GE(bits_per_weight(step.narrower), bits_per_weight(step.type)) << name_of(step.type);
  }
}

}  // namespace
}  // namespace quern
