#include "formats/arch/stems.h"

#include <gtest/gtest.h>

#include <vector>

namespace quern {
namespace {

struct Expected {
  const char* name;
  int rank;
  Role role;
  Keep keep;
  int64_t layer;
};

TEST(ClassifyTensor, KnowsTheNamesOfLlamaCppFiles) {
  for (const Expected& e : {
           Expected{"token_embd.weight", 2, Role::kTokenEmbedding, Keep::kMix, -1},
           Expected{"output.weight", 2, Role::kOutput, Keep::kMix, -1},
           Expected{"output_norm.weight", 1, Role::kNorm, Keep::kF32, -1},
           Expected{"rope_freqs.weight", 1, Role::kOther, Keep::kF32, -1},
           Expected{"blk.0.attn_qkv.weight", 2, Role::kAttention, Keep::kMix, 0},
           Expected{"blk.12.attn_kv_b.weight", 2, Role::kAttention, Keep::kMix, 12},
           Expected{"blk.12.attn_k_b.weight", 3, Role::kAttention, Keep::kMix, 12},
           Expected{"blk.3.attn_q.bias", 1, Role::kBias, Keep::kF32, 3},
           Expected{"blk.3.ffn_down_exps.bias", 2, Role::kBias, Keep::kF32, 3},
           Expected{"blk.3.exp_probs_b.bias", 1, Role::kRouter, Keep::kF32, 3},
           Expected{"blk.3.ffn_gate_inp.weight", 2, Role::kRouter, Keep::kF32, 3},
           Expected{"blk.3.ffn_gate_up_exps.weight", 3, Role::kRoutedExpert, Keep::kMix, 3},
           Expected{"blk.3.ffn_up_shexp.weight", 2, Role::kSharedExpert, Keep::kMix, 3},
           Expected{"blk.3.ffn_up.weight", 2, Role::kDenseFfn, Keep::kMix, 3},
           Expected{"blk.3.post_attention_norm.weight", 1, Role::kNorm, Keep::kF32, 3},
           Expected{"blk.3.attn_sinks.weight", 1, Role::kAttention, Keep::kF32, 3},
           Expected{"blk.61.nextn.eh_proj.weight", 2, Role::kMtp, Keep::kSource, 61},
           Expected{"blk.61.nextn.hnorm.weight", 1, Role::kNorm, Keep::kF32, 61},
           Expected{"blk.61.nextn.shared_head_norm.weight", 1, Role::kNorm, Keep::kF32, 61},
           Expected{"blk.61.nextn.embed_tokens.weight", 2, Role::kMtp, Keep::kMix, 61},
           Expected{"blk.3.ffn_up_exps.scale", 1, Role::kOther, Keep::kF32, 3},
           Expected{"something_else.weight", 2, Role::kOther, Keep::kMix, -1},
           Expected{"blk.x.attn_q.weight", 2, Role::kOther, Keep::kMix, -1},
           Expected{"blk.99999999999999999999.attn_q.weight", 2, Role::kOther, Keep::kMix, -1},
       }) {
    const TensorKind kind = classify_tensor("llama", e.name, e.rank);
    EXPECT_EQ(kind.role, e.role) << e.name;
    EXPECT_EQ(kind.keep, e.keep) << e.name;
    EXPECT_EQ(kind.layer, e.layer) << e.name;
  }
}

// What llama-quantize leaves alone in architectures that have no descriptor here.
TEST(ClassifyTensor, KeepsWhatLlamaQuantizeKeeps) {
  const struct {
    const char* arch;
    std::vector<const char*> kept, mixed;
  } cases[] = {
      {"mamba", {"blk.0.ssm_conv1d.weight"}, {"blk.0.ssm_in.weight", "blk.0.ssm_x.weight", "blk.0.ssm_dt.weight", "token_embd.weight"}},
      {"jamba", {"blk.0.ssm_conv1d.weight"}, {"blk.0.ssm_out.weight", "blk.3.attn_q.weight"}},
      {"kimi-linear", {"blk.0.ssm_conv1d_q.weight"}, {"blk.0.attn_q.weight"}},
      {"lfm2", {"blk.0.shortconv.conv.weight"}, {"blk.0.shortconv.in_proj.weight"}},
      {"rwkv6",
       {"blk.0.time_mix_w1.weight", "blk.0.time_mix_w2.weight", "blk.0.time_mix_first.weight", "blk.0.time_mix_decay_w1.weight",
        "blk.0.time_mix_lerp_fused.weight"},
       {"blk.0.time_mix_key.weight", "blk.0.channel_mix_value.weight"}},
      {"rwkv7",
       {"blk.0.time_mix_a1.weight", "blk.0.time_mix_v2.weight", "blk.0.time_mix_g1.weight", "blk.0.time_mix_w0.weight"},
       {"blk.0.time_mix_receptance.weight"}},
      {"gemma3n",
       {"altup_proj.weight", "blk.0.altup_router.weight", "blk.0.laurel_l.weight", "per_layer_model_proj.weight"},
       {"blk.0.inp_gate.weight", "per_layer_token_embd.weight"}},
      {"bert", {"position_embd.weight", "token_types.weight"}, {"token_embd.weight", "blk.0.ffn_up.weight"}},
      {"t5", {"dec.blk.0.attn_rel_b.weight", "enc.blk.0.attn_rel_b.weight"}, {"dec.blk.0.attn_q.weight"}},
      {"clip",
       {"v.patch_embd.weight", "v.position_embd.weight", "mm.patch_merger.weight", "a.rvq.codebook.0.weight"},
       {"v.blk.0.attn_q.weight", "mm.0.weight"}},
      {"minimax-m2", {"blk.0.indexer.k_proj.weight"}, {"blk.0.attn_q.weight"}},
  };
  for (const auto& c : cases) {
    for (const char* name : c.kept) EXPECT_EQ(classify_tensor(c.arch, name, 2).keep, Keep::kSource) << c.arch << " " << name;
    for (const char* name : c.mixed) EXPECT_EQ(classify_tensor(c.arch, name, 2).keep, Keep::kMix) << c.arch << " " << name;
  }
}

TEST(ClassifyTensor, OfUnknownArchitecturesQuantizesOnlyMatricesOfUsualNames) {
  for (const char* name : {"double_blocks.0.img_attn.qkv.weight", "encoder.conv1.weight", "blk.0.strange.weight"})
    EXPECT_EQ(classify_tensor("flux", name, 2).keep, Keep::kSource) << name;
  for (const char* name : {"token_embd.weight", "output.weight", "blk.0.attn_q.weight", "blk.0.ffn_down_exps.weight"})
    EXPECT_EQ(classify_tensor("not-yet-known", name, 2).keep, Keep::kMix) << name;
  EXPECT_EQ(classify_tensor("qwen3next", "blk.0.ssm_ba.weight", 2).keep, Keep::kMix);
}

TEST(ClassifyTensor, KeepsTheRouterOfDeepSeek4AsStored) {
  EXPECT_EQ(classify_tensor("deepseek4", "blk.0.ffn_gate_inp.weight", 2).keep, Keep::kSource);
  EXPECT_EQ(classify_tensor("deepseek4", "blk.0.ffn_gate_tid2eid.weight", 2).keep, Keep::kInteger);
}

TEST(BlockName, IsTakenApartAndBuilt) {
  const BlockName block = split_block_name("blk.12.attn_q.weight");
  EXPECT_EQ(block.layer, 12);
  EXPECT_EQ(block.name, "attn_q.weight");
  EXPECT_EQ(block_name(block.layer, block.name), "blk.12.attn_q.weight");
  for (const char* outside : {"output.weight", "blk.", "blk.1", "blk.x.attn_q.weight", "blk.-1.attn_q.weight"}) {
    EXPECT_EQ(split_block_name(outside).layer, -1) << outside;
    EXPECT_EQ(split_block_name(outside).name, outside);
  }
}

TEST(SameInput, IsThatOfTheBlock) {
  EXPECT_EQ(weights_with_same_input("blk.7.ffn_up.weight"), std::vector<std::string>{"blk.7.ffn_gate.weight"});
  EXPECT_EQ(weights_with_same_input("blk.7.indexer.attn_q_b.weight"), std::vector<std::string>{"blk.7.attn_q_b.weight"});
  EXPECT_EQ(weights_with_same_input("blk.7.attn_k.weight").front(), "blk.7.attn_q.weight");
  EXPECT_TRUE(weights_with_same_input("blk.7.ffn_down.weight").empty());
  EXPECT_TRUE(weights_with_same_input("output.weight").empty());
}

TEST(MatchesPattern, TakesStarsAsAnyText) {
  EXPECT_TRUE(matches_pattern("mtp.*", "mtp.0.norm.weight"));
  EXPECT_TRUE(matches_pattern("*.rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq"));
  EXPECT_TRUE(matches_pattern("a*b*c", "a--b-b--c"));
  EXPECT_FALSE(matches_pattern("a*b*c", "a--b-b--d"));
  EXPECT_FALSE(matches_pattern("mtp.*", "xmtp.0"));
  EXPECT_FALSE(matches_pattern("exact", "exactly"));
  EXPECT_FALSE(matches_pattern("ab*ba", "aba"));
}

}  // namespace
}  // namespace quern
