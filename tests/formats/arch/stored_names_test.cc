#include "formats/arch/stored_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

using testing::HasSubstr;
using Names = std::vector<std::string>;

ArchRules rules_for(const Names& stored_and_gguf) {
  ArchRules rules;
  for (size_t i = 0; i < stored_and_gguf.size(); i += 2) {
    TensorRule rule;
    rule.stored = stored_and_gguf[i];
    rule.name = stored_and_gguf[i + 1];
    rules.rules.push_back(rule);
  }
  return rules;
}

const ArchRules kExpected = rules_for({"model.embed_tokens.weight", "token_embd.weight", "model.norm.weight", "output_norm.weight",
                                       "model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight"});
const Names kPlain = {"lm_head.weight", "model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight"};

Names changed(const Names& stored, const ArchRules& expected = kExpected) {
  const std::optional<NameChange> change = find_name_change(stored, expected);
  if (!change) return {};
  Names names;
  for (const std::string& name : stored) names.push_back((*change)(name));
  return names;
}

std::string note(const Names& stored) { return find_name_change(stored, kExpected).value_or(NameChange()).describe(); }

TEST(StoredNames, AreLeftAloneWhereTheyFit) {
  EXPECT_FALSE(find_name_change(kPlain, kExpected).has_value());
  EXPECT_FALSE(find_name_change(Names{"transformer.wte.weight"}, kExpected).has_value());
  EXPECT_FALSE(find_name_change(Names{}, kExpected).has_value());
}

TEST(StoredNames, LoseThePrefixesOfWrappers) {
  for (const char* prefix : {"base_model.model.", "_orig_mod.", "module.", "language_model.", "module._orig_mod.", "_orig_mod.module.",
                             "student.", "_forward_module."}) {
    Names stored;
    for (const std::string& name : kPlain) stored.push_back(prefix + name);
    EXPECT_EQ(changed(stored), kPlain) << prefix;
    EXPECT_NE(note(stored), "");
  }
  EXPECT_THAT(note({"module.model.embed_tokens.weight", "module.model.norm.weight"}),
              HasSubstr("begin with 'module.', which is taken off"));
}

TEST(StoredNames, LoseWhatStandsBetweenComponents) {
  EXPECT_EQ(changed({"lm_head.weight", "model.embed_tokens.weight", "model.layers.0._orig_mod.mlp.up_proj.weight", "model.norm.weight"}),
            kPlain);
  EXPECT_EQ(changed({"_fsdp_wrapped_module.lm_head.weight", "_fsdp_wrapped_module.model.embed_tokens.weight",
                     "_fsdp_wrapped_module.model.layers.0._fsdp_wrapped_module._checkpoint_wrapped_module.mlp.up_proj.weight",
                     "_fsdp_wrapped_module.model.norm.weight"}),
            kPlain);
  EXPECT_FALSE(find_name_change(Names{"model.embed_tokens.weight", "model.norm.weight", "model.x_orig_mod.weight"}, kExpected).has_value());
}

TEST(StoredNames, GetTheRootOfTheModelInPlaceOfAnother) {
  EXPECT_EQ(changed({"lm_head.weight", "model.language_model.embed_tokens.weight", "model.language_model.layers.0.mlp.up_proj.weight",
                     "model.language_model.norm.weight"}),
            kPlain);
  EXPECT_EQ(
      changed({"lm_head.weight", "transformer.embed_tokens.weight", "transformer.layers.0.mlp.up_proj.weight", "transformer.norm.weight"}),
      kPlain);
}

TEST(StoredNames, GetTheRootWhereABareModelWasSaved) {
  const Names bare = {"lm_head.weight", "embed_tokens.weight", "layers.0.mlp.up_proj.weight", "norm.weight"};
  EXPECT_EQ(changed(bare), kPlain);
  EXPECT_THAT(note(bare), HasSubstr("lack 'model.', which is put before them"));
}

TEST(StoredNames, KeepWhatIsNoPartOfTheModel) {
  const Names stored = {"language_model.model.embed_tokens.weight", "language_model.model.norm.weight", "vision_tower.norm.weight"};
  EXPECT_EQ(changed(stored), (Names{"model.embed_tokens.weight", "model.norm.weight", "vision_tower.norm.weight"}));
}

TEST(StoredNames, AreLeftAloneWhereTwoModelsCouldBeMeant) {
  EXPECT_FALSE(
      find_name_change(Names{"a.model.embed_tokens.weight", "a.model.norm.weight", "b.model.embed_tokens.weight", "b.model.norm.weight"},
                       kExpected)
          .has_value());
  EXPECT_FALSE(
      find_name_change(Names{"model.embed_tokens.weight", "model.norm.weight", "ema.model.embed_tokens.weight", "ema.model.norm.weight"},
                       kExpected)
          .has_value());
  EXPECT_FALSE(find_name_change(Names{"a.model.embed_tokens.weight", "a.model.norm.weight", "model.norm.weight"}, kExpected).has_value());
}

TEST(StoredNames, OfFamiliesWithoutARootLoseOne) {
  const ArchRules expected = rules_for({"embed.weight", "token_embd.weight", "norm.weight", "output_norm.weight"});
  EXPECT_EQ(changed({"model.embed.weight", "model.layers.0.x", "model.norm.weight"}, expected),
            (Names{"embed.weight", "layers.0.x", "norm.weight"}));
}

}  // namespace
}  // namespace quern
