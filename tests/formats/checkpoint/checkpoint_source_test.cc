#include "formats/checkpoint/checkpoint_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "formats/arch/config.h"
#include "formats/base/resources.h"
#include "formats/checkpoint/gguf_source.h"
#include "tests/formats/checkpoint_builder.h"
#include "tests/formats/expect_error.h"

namespace quern::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string opening_error(const CheckpointBuilder& model, const ArchRules& rules) {
  return error_of([&] { open_source(model, rules); });
}

TEST(CheckpointSource, NamesEveryProblemInOneError) {
  CheckpointBuilder model;
  model.add_float("a.weight", DType::BF16, {2, 3}).add_float("extra.weight", DType::BF16, {1}).add_i64("i.weight", {1}, {1});
  model.add_fp8("b.weight", "b.odd_scale", DType::F32, {2, 2});
  const ArchRules rules{
      {rule("a.weight", "a", {3, 2}), rule("gone.weight", "gone", {1}), rule("i.weight", "i", {1}), rule("b.weight", "b", {2, 2})}, {}, {}};
  EXPECT_THAT(
      opening_error(model, rules),
      AllOf(HasSubstr("'a.weight' has shape [2, 3], expected [3, 2]"), HasSubstr("missing tensor 'gone.weight'"),
            HasSubstr("'i.weight' is I64, expected a float type"), HasSubstr("scale of 'b.weight' (F8_E4M3) is missing"),
            HasSubstr("no rule claims the stored tensor 'b.odd_scale'"), HasSubstr("no rule claims the stored tensor 'extra.weight'")));
}

TEST(CheckpointSource, CountsProblemsOfOneKind) {
  CheckpointBuilder model;
  for (int i = 0; i < 30; ++i) model.add_float("layers." + std::to_string(i) + ".odd", DType::F32, {1});
  EXPECT_EQ(opening_error(model, {}), "no rule claims the stored tensor 'layers.0.odd' (and 29 more like it)");
}

TEST(CheckpointSource, WantsEveryExpertAndNoMore) {
  CheckpointBuilder model;
  for (const int e : {0, 1, 3, 4}) model.add_float("experts." + std::to_string(e) + ".up", DType::F32, {2, 2});
  EXPECT_THAT(opening_error(model, {{rule("experts.{e}.up", "up", {4, 2, 2})}, {}, {}}),
              AllOf(HasSubstr("missing tensor 'experts.2.up'"), HasSubstr("no rule claims the stored tensor 'experts.4.up'")));
}

TEST(CheckpointSource, MakesNoListOfExpertsThatCannotBeThere) {
  CheckpointBuilder model;
  model.add_float("experts.0.up", DType::F32, {2, 2});
  EXPECT_THAT(opening_error(model, {{rule("experts.{e}.up", "up", {2000000000, 2, 2})}, {}, {}}),
              HasSubstr("stands for 2000000000 experts, but the checkpoint has only 1 tensors"));
}

TEST(CheckpointSource, RefusesToPermuteHeadsOfAnOddNumberOfRows) {
  CheckpointBuilder model;
  model.add_float("q", DType::F32, {6, 2});
  ArchRules rules{{rule("q", "q", {6, 2}, Transform::kPermuteHeads)}, {}, {}};
  rules.rules[0].n_head = 2;
  EXPECT_EQ(opening_error(model, rules), "'q' has 6 rows, which are no 2 heads of an even number of rows");
}

TEST(CheckpointSource, ShowsWhatIsThereBesideWhatIsMissing) {
  CheckpointBuilder model;
  ArchRules rules;
  for (const char* name : {"a", "b", "c", "d", "e", "f", "g", "h"}) {
    rules.rules.push_back(rule(std::string("old.") + name, name, {1}));
    model.add_float(std::string("new.") + name, DType::F32, {1});
  }
  model.add_float("same", DType::F32, {1});
  rules.rules.push_back(rule("same", "same", {1}));
  EXPECT_EQ(opening_error(model, rules),
            "missing tensor 'old.a'; no rule claims the stored tensor 'new.a'; missing tensor 'old.b'; no rule claims the stored tensor "
            "'new.b'; missing tensor 'old.c'; no rule claims the stored tensor 'new.c'; and 10 more kinds of problems");
}

TEST(CheckpointSource, SaysNothingWrongOfScalesWhoseWeightsDoNotFit) {
  CheckpointBuilder model;
  model.block_rows = model.block_cols = 2;
  model.add_fp8("a.weight", "a.weight_scale_inv", DType::F32, {4, 4});
  EXPECT_EQ(opening_error(model, {{rule("a.weight", "a", {4, 6})}, {}, {}}), "'a.weight' has shape [4, 4], expected [4, 6]");
}

TEST(CheckpointSource, LeavesOutWhatIsSkippedAndHasNoUse) {
  CheckpointBuilder model;
  model.add_float("a", DType::F32, {1}).add_float("layers.0.k_scale", DType::F32, {1}).add_float("layers.1.k_scale", DType::F32, {1});
  model.add_float("v_head.weight", DType::F32, {1});
  const ArchRules rules{{rule("a", "a", {1})}, {}, {}};
  const auto open = [&](const std::vector<std::string>& skip) {
    return CheckpointSource(model.open(), rules, model.config(), Metadata(), {}, skip);
  };
  const CheckpointSource source = open({"k_scale$", "v_head"});
  EXPECT_EQ(source.tensors().size(), 1U);
  EXPECT_THAT(source.notes(),
              ::testing::ElementsAre("--skip 'k_scale$' leaves out 2 stored tensors: 'layers.0.k_scale' to 'layers.1.k_scale'",
                                     "--skip 'v_head' leaves out 1 stored tensor: 'v_head.weight'"));
  EXPECT_THAT(error_of([&] { open({"k_scale"}); }), HasSubstr("no rule claims the stored tensor 'v_head.weight'"));
  EXPECT_ERROR(open({"k_scale", "v_head", "^a"}), ErrorKind::kUsage, "--skip '^a' would leave out 'a', which the model needs");
  EXPECT_ERROR(open({"k_scale", "v_head", "q_scale"}), ErrorKind::kUsage, "--skip 'q_scale' finds no stored tensor");
  EXPECT_ERROR(open({"("}), ErrorKind::kUsage, "is not a regular expression");
}

TEST(CheckpointSource, StacksExpertsInNumericOrder) {
  CheckpointBuilder model;
  for (int e = 0; e < 12; ++e) {
    model.add_raw("experts." + std::to_string(e) + ".up", DType::F32, {1, 1}, floats_to_bytes({static_cast<float>(e)}));
  }
  const CheckpointSource source = open_source(model, {{rule("experts.{e}.up", "up", {12, 1, 1})}, {}, {}});
  EXPECT_EQ(decode_chunk(source, 0, 0, 12), (std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(source.tensors()[0].n_slices, 12);
  EXPECT_EQ(source.tensors()[0].source_names[10], "experts.10.up");
}

TEST(CheckpointSource, DropsIgnoredTensorsWithTheirScales) {
  CheckpointBuilder model;
  model.add_float("rotary.inv_freq", DType::F32, {4}).add_fp8("mtp.0.w.weight", "mtp.0.w.scale", DType::F8_E8M0, {2, 2});
  model.add_fp8("layers.9.w.weight", "layers.9.w.weight_scale_inv", DType::F32, {2, 2});
  const ArchRules rules{{}, {"*.inv_freq", "mtp.*.weight", "layers.9.w.weight"}, {"left out"}};
  const CheckpointSource source = open_source(model, rules);
  EXPECT_THAT(source.tensors(), IsEmpty());
  EXPECT_EQ(source.notes()[0], "left out");
}

TEST(CheckpointSource, RefusesEncodingsThatItDoesNotKnowByName) {
  const auto error_for = [](const std::string& name, DType dtype) {
    CheckpointBuilder model;
    model.add_raw(name, dtype, {1}, Bytes(static_cast<size_t>(traits(dtype).block_bytes)));
    return opening_error(model, {});
  };
  EXPECT_THAT(error_for("a.weight_packed", DType::I32),
              HasSubstr("'a.weight_packed' belongs to an encoding that is not supported: compressed"));
  EXPECT_THAT(error_for("a.weight_scale_2", DType::F32), HasSubstr("not supported: NVIDIA ModelOpt"));
  EXPECT_THAT(error_for("a.weight_scale", DType::F32), HasSubstr("not supported: integers with per-tensor or per-row scales"));
  EXPECT_THAT(error_for("a.qweight", DType::I32), HasSubstr("not supported: GPTQ or AWQ"));
  EXPECT_THAT(error_for("a.scales", DType::BF16), HasSubstr("not supported: MLX, GPTQ or AWQ"));
  EXPECT_THAT(error_for("a.weight.absmax", DType::U8), HasSubstr("not supported: bitsandbytes"));
  EXPECT_THAT(error_for("a.weight.quant_state.bitsandbytes__nf4", DType::U8), HasSubstr("not supported: bitsandbytes"));
}

TEST(CheckpointSource, RefusesEightBitIntegersAndScalesWithoutUse) {
  CheckpointBuilder model;
  model.add_raw("int8.weight", DType::I8, {2, 32}, Bytes(64)).add_raw("int8.scale", DType::F32, {2, 1}, Bytes(8));
  model.add_float("bf16.weight", DType::BF16, {2, 2}).add_float("bf16.weight_scale_inv", DType::F32, {1, 1});
  model.add_raw("ragged.weight", DType::I8, {2, 20}, Bytes(40)).add_raw("ragged.scale", DType::U8, {2, 2}, Bytes(4));
  const ArchRules rules{
      {rule("int8.weight", "int8", {2, 32}), rule("bf16.weight", "bf16", {2, 2}), rule("ragged.weight", "ragged", {2, 40})}, {}, {}};
  EXPECT_THAT(opening_error(model, rules),
              AllOf(HasSubstr("'int8.weight' holds 8-bit integer weights; only FP4 pairs are known in I8"),
                    HasSubstr("'bf16.weight_scale_inv' is a scale without use"),
                    HasSubstr("'ragged.weight' is FP4 with rows of 40 weights, which is not a multiple of 32")));
}

TEST(CheckpointSource, ChecksScalesAgainstTheBlocks) {
  CheckpointBuilder model;
  model.add_raw("a.weight", DType::F8_E4M3, {130, 4}, Bytes(520)).add_raw("a.weight_scale_inv", DType::F32, {1, 1}, Bytes(4));
  model.add_raw("b.weight", DType::F8_E4M3, {2, 2}, Bytes(4)).add_raw("b.scale", DType::I32, {1, 1}, Bytes(4));
  model.add_raw("c.weight", DType::I8, {1, 16}, Bytes(16)).add_raw("c.scale", DType::F32, {1, 1}, Bytes(4));
  const ArchRules rules{{rule("a.weight", "a", {130, 4}), rule("b.weight", "b", {2, 2}), rule("c.weight", "c", {1, 32})}, {}, {}};
  EXPECT_THAT(opening_error(model, rules),
              AllOf(HasSubstr("'a.weight_scale_inv' has shape [1, 1], expected [2, 1]"), HasSubstr("'b.scale' is I32, not a scale type"),
                    HasSubstr("'c.scale' is F32, FP4 scales are F8_E8M0 or U8")));
}

TEST(CheckpointSource, WantsTheBlockSizeOfFp8FromTheConfig) {
  CheckpointBuilder model;
  model.block_rows = model.block_cols = 2;
  model.add_fp8("a.weight", "a.weight_scale_inv", DType::F32, {4, 4});
  const ArchRules rules{{rule("a.weight", "a", {4, 4})}, {}, {}};
  EXPECT_THAT(error_of([&] { CheckpointSource(model.open(), rules, {}, Metadata()); }),
              HasSubstr("no quantization_config.weight_block_size"));
}

TEST(CheckpointSource, LeavesOutARepeatedTensorAndKeepsADifferentOne) {
  for (const bool equal : {true, false}) {
    CheckpointBuilder model;
    std::vector<float> values(600000);
    model.add_raw("embed", DType::F32, {600, 1000}, floats_to_bytes(values));
    if (!equal) values.back() = 1;
    model.add_raw("head", DType::F32, {600, 1000}, floats_to_bytes(values));
    ArchRules rules{{rule("embed", "token_embd.weight", {600, 1000}), rule("head", "output.weight", {600, 1000})}, {}, {}};
    rules.rules[1].drop_if_equal_to = "embed";
    const CheckpointSource source = open_source(model, rules);
    EXPECT_EQ(source.tensors().size(), equal ? 1U : 2U);
    EXPECT_EQ(source.notes()[0],
              equal ? "'head' repeats 'embed' byte for byte and is left out"
                    : "'head' differs from 'embed', which it should repeat as tie_word_embeddings in config.json is true; it is kept");
    EXPECT_EQ(source.bytes_read(), 0U);
  }
}

TEST(CheckpointSource, ListsItsFiles) {
  CheckpointBuilder model;
  model.add_float("a", DType::F32, {1});
  const CheckpointSource source = open_source(model, {{rule("a", "a", {1})}, {}, {}});
  ASSERT_EQ(source.files().size(), 1U);
  EXPECT_EQ(source.files()[0].name, "model.safetensors");
  EXPECT_EQ(source.files()[0].size_bytes, std::filesystem::file_size(model.folder() / "model.safetensors"));
}

// 61 layers of 384 FP4 experts, as DeepSeek-V4-Pro has them. Opening takes 0.5 s here; the bound leaves room for slow machines.
TEST(CheckpointSource, OpensACheckpointOf145000TensorsInSeconds) {
  TempDir dir;
  std::map<std::string, SafetensorsBuilder> shards;
  ArchRules rules;
  for (int64_t layer = 0; layer < 62; ++layer) {
    const std::string prefix = "layers." + std::to_string(layer) + ".ffn.experts.";
    SafetensorsBuilder& shard = shards["model-" + std::to_string(layer) + ".safetensors"];
    for (const char* name : {"w1", "w2", "w3"}) {
      for (int64_t e = 0; e < 384; ++e) {
        const std::string stem = prefix + std::to_string(e) + "." + name;
        shard.add_zeros(stem + ".weight", DType::I8, {3072, 3584}).add_zeros(stem + ".scale", DType::F8_E8M0, {3072, 224});
      }
      rules.rules.push_back(rule(prefix + "{e}." + name + ".weight", "blk." + std::to_string(layer) + "." + name, {384, 3072, 7168}));
    }
  }
  write_checkpoint(dir.path(), shards);
  const auto start = std::chrono::steady_clock::now();
  const CheckpointSource source(safetensors::Checkpoint(dir.path()), rules, {}, Metadata());
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  RecordProperty("seconds", std::to_string(seconds.count()));
  EXPECT_LT(seconds.count(), 20);
  ASSERT_EQ(source.tensors().size(), 62U * 3);
  EXPECT_EQ(source.tensors()[0].source_bytes, uint64_t{384} * 3072 * (3584 + 224));
}

// 4.5 GB of experts in a file full of holes: the buffers of a chunk, not the stack, are what it costs.
TEST(CheckpointSource, ReadsAHugeStackInTheMemoryOfAChunk) {
  TempDir dir;
  SafetensorsBuilder file;
  for (int64_t e = 0; e < 384; ++e) {
    const std::string stem = "experts." + std::to_string(e);
    file.add_zeros(stem + ".weight", DType::I8, {3072, 3584}).add_zeros(stem + ".scale", DType::F8_E8M0, {3072, 224});
  }
  write_sparse(dir / "model.safetensors", file.header(), file.data_bytes());
  const CheckpointSource source(safetensors::Checkpoint(dir.path()), {{rule("experts.{e}.weight", "up", {384, 3072, 7168})}, {}, {}}, {},
                                Metadata());
  constexpr int64_t kRows = 512;
  RawRows raw;
  Bytes blocks(static_cast<size_t>(kRows) * 7168 / 32 * 17);
  const uint64_t before = peak_resident_bytes();
  for (int64_t row = 0; row < 384 * 3072; row += 16 * kRows) {
    source.fetch(0, row, kRows, raw);
    source.copy(raw, DType::MXFP4, blocks);
  }
  EXPECT_EQ(source.bytes_read(), file.data_bytes() / 16);
  EXPECT_LT(peak_resident_bytes() - before, 16U << 20);
}

GgufBuilder small_gguf() {
  GgufBuilder file;
  file.set("general.architecture", std::string("llama")).set("general.name", std::string("small"));
  file.add("token_embd.weight", DType::F32, {2, 3}, floats_to_bytes({1, 2, 3, 4, 5, 6}));
  file.add("blk.0.ffn_up_exps.weight", DType::Q8_0, {2, 2, 32}, Bytes(4 * 34, std::byte{1}));
  file.add("blk.0.attn_norm.weight", DType::F32, {2}, floats_to_bytes({1, std::numeric_limits<float>::infinity()}));
  return file;
}

TEST(GgufSource, GivesTheTensorsOfAFile) {
  TempDir dir;
  write_bytes(dir / "m.gguf", small_gguf().file());
  const GgufSource source((gguf::File(dir / "m.gguf")));
  ASSERT_EQ(source.tensors().size(), 3U);
  EXPECT_EQ(source.metadata().get_string("general.name"), "small");
  EXPECT_EQ(source.files()[0].name, "m.gguf");
  EXPECT_EQ(decode_chunk(source, 0, 1, 1), (std::vector<float>{4, 5, 6}));
  EXPECT_EQ(source.tensors()[1].role, Role::kRoutedExpert);
  EXPECT_EQ(source.tensors()[1].n_slices, 2);
  EXPECT_EQ(source.tensors()[1].layer, 0);
  EXPECT_EQ(source.exactness(1).type, DType::Q8_0);
  EXPECT_EQ(source.bytes_read(), 12U);

  RawRows raw;
  source.fetch(1, 1, 2, raw);
  EXPECT_LE(raw.bytes.size(), source.raw_bytes(1, 2));
  Bytes copied(2 * 34);
  EXPECT_TRUE(source.can_copy(1, DType::Q8_0));
  EXPECT_FALSE(source.can_copy(1, DType::F16));
  source.copy(raw, DType::Q8_0, copied);
  EXPECT_EQ(copied, Bytes(2 * 34, std::byte{1}));
}

TEST(GgufSource, CountsDimensionsAsGgmlAndKeepsTables) {
  TempDir dir;
  GgufBuilder file;
  file.set("general.architecture", std::string("rwkv6"));
  file.add_zeros("blk.0.time_mix_lerp_x.weight", DType::F32, {1, 1, 256});  // a vector to ggml
  file.add_zeros("blk.0.time_mix_key.weight", DType::F32, {1, 2, 256});
  file.add_zeros("ids.weight", DType::I32, {2, 32});
  write_bytes(dir / "m.gguf", file.file());
  const GgufSource source((gguf::File(dir / "m.gguf")));
  EXPECT_EQ(source.tensors()[0].keep, Keep::kF32);
  EXPECT_EQ(source.tensors()[1].keep, Keep::kMix);
  EXPECT_EQ(source.tensors()[2].keep, Keep::kInteger);
  EXPECT_TRUE(source.notes().empty());
  write_bytes(dir / "m.gguf", GgufBuilder().set("general.architecture", std::string("flux")).file());
  EXPECT_THAT(GgufSource(gguf::File(dir / "m.gguf")).notes()[0], HasSubstr("architecture 'flux' is not one of llama.cpp"));
}

TEST(GgufSource, NamesTensorAndRowOfANonfiniteWeight) {
  TempDir dir;
  write_bytes(dir / "m.gguf", small_gguf().file());
  const std::unique_ptr<ModelSource> source = open_model(dir / "m.gguf");
  EXPECT_THAT(error_of([&] { decode_chunk(*source, 2, 0, 1); }), HasSubstr("tensor 'blk.0.attn_norm.weight': row 0 has a NaN"));
  RawRows raw;
  source->fetch(2, 0, 1, raw);
  Bytes out(8);
  EXPECT_THAT(error_of([&] { source->copy(raw, DType::F32, out); }), HasSubstr("tensor 'blk.0.attn_norm.weight': row 0 has a NaN"));
}

TEST(GgufSource, NamesATensorThatHoldsNoWeights) {
  TempDir dir;
  for (const DType type : {DType::I8, DType::I32, DType::I64, DType::F64}) {
    write_bytes(dir / "m.gguf", GgufBuilder().add_zeros("blk.0.attn_q.weight", type, {2, 32}).file());
    const GgufSource source((gguf::File(dir / "m.gguf")));
    EXPECT_THAT(error_of([&] { decode_chunk(source, 0, 0, 2); }),
                HasSubstr("tensor 'blk.0.attn_q.weight': holds " + std::string(name_of(type)) + ", which are no weights"));
  }
}

TEST(GgufSource, JoinsShardsAndLeavesOutTheSplitKeys) {
  TempDir dir;
  for (int i = 0; i < 2; ++i) {
    GgufBuilder shard;
    shard.set("split.no", static_cast<uint16_t>(i)).set("split.count", uint16_t{2}).set("split.tensors.count", int32_t{2});
    if (i == 0) shard.set("general.architecture", std::string("llama"));
    shard.add("blk." + std::to_string(i) + ".attn_norm.weight", DType::F32, {1}, floats_to_bytes({static_cast<float>(i)}));
    write_bytes(dir / gguf::split_name("m", i, 2), shard.file());
  }
  const std::unique_ptr<ModelSource> source = open_model(dir / gguf::split_name("m", 0, 2));
  ASSERT_EQ(source->tensors().size(), 2U);
  EXPECT_EQ(decode_chunk(*source, 1, 0, 1), std::vector<float>{1});
  EXPECT_EQ(source->files().size(), 2U);
  EXPECT_EQ(source->metadata().find("split.count"), nullptr);
  EXPECT_NE(source->metadata().find("general.architecture"), nullptr);
}

}  // namespace
}  // namespace quern::test
