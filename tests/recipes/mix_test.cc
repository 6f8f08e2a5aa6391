#include "recipes/mix.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "formats/base/error.h"

namespace quern {
namespace {

LogicalTensor tensor(std::string name, Shape shape, Keep keep = Keep::kMix) {
  LogicalTensor t;
  t.name = std::move(name);
  t.shape = shape;
  t.keep = keep;
  if (t.name.starts_with("blk.")) t.layer = std::stoll(t.name.substr(4));
  return t;
}

Metadata model(const std::string& arch, int64_t layers, int64_t heads, int64_t kv_heads, int64_t experts) {
  Metadata metadata;
  metadata.set("general.architecture", arch);
  metadata.set(arch + ".block_count", static_cast<uint32_t>(layers));
  metadata.set(arch + ".attention.head_count", static_cast<uint32_t>(heads));
  metadata.set(arch + ".attention.head_count_kv", static_cast<uint32_t>(kv_heads));
  if (experts > 0) metadata.set(arch + ".expert_count", static_cast<uint32_t>(experts));
  return metadata;
}

// One file of tests/data/mix-rules; the format is in the README there.
struct Expected {
  std::map<char, DType> legend;
  Metadata metadata;
  std::vector<LogicalTensor> tensors;
  struct Row {
    std::string mix;
    std::string imatrix;
    std::string types;
  };
  std::vector<Row> rows;
};

Expected read_expected(const std::filesystem::path& path) {
  Expected expected;
  std::ifstream in(path);
  for (std::string text; std::getline(in, text);) {
    std::istringstream line(text);
    std::string kind, word;
    line >> kind;
    if (kind == "legend") {
      while (line >> word) expected.legend[word[0]] = find_dtype_by_name(word.substr(2)).value();
    } else if (kind == "model") {
      int64_t layers = 0, heads = 0, kv_heads = 0, experts = 0;
      line >> word >> layers >> heads >> kv_heads >> experts;
      expected.metadata = model(word, layers, heads, kv_heads, experts);
    } else if (kind == "tensor") {
      std::vector<int64_t> dims;
      line >> word;
      for (int64_t dim; line >> dim;) dims.push_back(dim);
      expected.tensors.push_back(tensor(word, Shape(dims)));
    } else if (kind == "mix") {
      Expected::Row row;
      line >> row.mix >> row.imatrix >> row.types;
      expected.rows.push_back(row);
    }
  }
  return expected;
}

void expect_types(const Expected& expected, const Expected::Row& row, bool have_imatrix) {
  const auto choices = choose_types(*find_mix(row.mix), expected.metadata, expected.tensors, have_imatrix);
  for (size_t k = 0; k < choices.size(); ++k) {
    EXPECT_EQ(name_of(choices[k].type), name_of(expected.legend.at(row.types[k])))
        << row.mix << " imatrix " << have_imatrix << ' ' << expected.tensors[k].name;
  }
}

TEST(Mix, ChoosesWhatLlamaQuantizeChoosesForEveryMixAndShape) {
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(QUERN_TEST_DATA) / "mix-rules")) {
    if (entry.path().extension() != ".txt") continue;
    SCOPED_TRACE(entry.path().filename().string());
    const Expected expected = read_expected(entry.path());
    ASSERT_FALSE(expected.rows.empty());
    for (const Expected::Row& row : expected.rows) {
      ASSERT_NE(find_mix(row.mix), nullptr) << row.mix;
      ASSERT_EQ(row.types.size(), expected.tensors.size());
      if (row.imatrix != "1") expect_types(expected, row, false);
      if (row.imatrix != "0") expect_types(expected, row, true);
    }
    ++files;
  }
  EXPECT_EQ(files, 9u);
}

std::vector<LogicalTensor> llama_8b() {
  std::vector<LogicalTensor> tensors = {tensor("token_embd.weight", {128256, 4096}), tensor("output.weight", {128256, 4096}),
                                        tensor("output_norm.weight", {4096}, Keep::kF32)};
  for (int i = 0; i < 32; ++i) {
    const std::string block = "blk." + std::to_string(i) + ".";
    for (const char* name : {"attn_q.weight", "attn_output.weight"}) tensors.push_back(tensor(block + name, {4096, 4096}));
    for (const char* name : {"attn_k.weight", "attn_v.weight"}) tensors.push_back(tensor(block + name, {1024, 4096}));
    for (const char* name : {"ffn_gate.weight", "ffn_up.weight"}) tensors.push_back(tensor(block + name, {14336, 4096}));
    tensors.push_back(tensor(block + "ffn_down.weight", {4096, 14336}));
    for (const char* name : {"attn_norm.weight", "ffn_norm.weight"}) tensors.push_back(tensor(block + name, {4096}, Keep::kF32));
  }
  return tensors;
}

// Published bits per weight of Llama-3.1-8B (llama.cpp tools/quantize/README.md), four decimals. All but IQ4_XS and IQ4_NL
// were made with an importance matrix.
TEST(Mix, ReproducesThePublishedBitsPerWeightOfLlama8B) {
  const std::map<std::string, double> published = {
      {"IQ1_S", 2.0042},  {"IQ1_M", 2.1460},  {"IQ2_XXS", 2.3824}, {"IQ2_XS", 2.5882}, {"IQ2_S", 2.7403},  {"IQ2_M", 2.9294},
      {"Q2_K_S", 2.9697}, {"Q2_K", 3.1593},   {"IQ3_XXS", 3.2548}, {"IQ3_XS", 3.4977}, {"IQ3_S", 3.6606},  {"IQ3_M", 3.7628},
      {"Q3_K_S", 3.6429}, {"Q3_K_M", 3.9960}, {"Q3_K_L", 4.2979},  {"IQ4_XS", 4.4597}, {"IQ4_NL", 4.6818}, {"Q4_K_S", 4.6672},
      {"Q4_K_M", 4.8944}, {"Q5_K_S", 5.5704}, {"Q5_K_M", 5.7036},  {"Q6_K", 6.5633},   {"Q8_0", 8.5008},   {"Q4_0", 4.6505}};
  const std::vector<LogicalTensor> tensors = llama_8b();
  for (const auto& [name, bpw] : published) {
    const bool have_imatrix = name != "IQ4_XS" && name != "IQ4_NL";
    const auto choices = choose_types(*find_mix(name), model("llama", 32, 32, 8, 0), tensors, have_imatrix);
    uint64_t bytes = 0, weights = 0;
    for (size_t k = 0; k < tensors.size(); ++k) {
      bytes += tensor_size_bytes(choices[k].type, tensors[k].shape);
      weights += static_cast<uint64_t>(tensors[k].shape.n_elements());
    }
    EXPECT_NEAR(8.0 * static_cast<double>(bytes) / static_cast<double>(weights), bpw, 0.00005) << name;
  }
}

TEST(Mix, TheKeepListWins) {
  std::vector<LogicalTensor> tensors = {tensor("blk.0.ffn_gate_inp.weight", {8, 512}, Keep::kSource),
                                        tensor("blk.0.attn_norm.weight", {512}, Keep::kF32),
                                        tensor("blk.0.ffn_gate_tid2eid.weight", {512, 8}, Keep::kInteger)};
  tensors[0].source_type = DType::BF16;
  const auto choices = choose_types(*find_mix("Q4_K_M"), model("deepseek4", 8, 8, 8, 8), tensors, false);
  EXPECT_EQ(choices[0].type, DType::BF16);
  EXPECT_EQ(choices[1].type, DType::F32);
  EXPECT_EQ(choices[2].type, DType::I32);
  for (const TypeChoice& choice : choices) EXPECT_EQ(choice.why, "keep-list");
  EXPECT_EQ(choose_types(*find_mix("F32"), {}, tensors, false)[0].type, DType::F32);
}

TEST(Mix, WidthsThatNoBlockDividesBecomeA16BitFloat) {
  std::vector<LogicalTensor> tensors = {tensor("blk.0.ffn_up.weight", {64, 72}), tensor("blk.0.ffn_gate.weight", {64, 96})};
  tensors[0].source_type = DType::F32;
  const auto choices = choose_types(*find_mix("Q8_0"), model("llama", 1, 1, 1, 0), tensors, false);
  EXPECT_EQ(choices[0].type, DType::F16);
  EXPECT_EQ(choices[0].why, "width fallback");
  EXPECT_EQ(choices[0].wanted, DType::Q8_0);
  tensors[0].source_type = DType::BF16;
  EXPECT_EQ(choose_types(*find_mix("Q8_0"), model("llama", 1, 1, 1, 0), tensors, false)[0].type, DType::BF16);
  EXPECT_EQ(type_for_width(DType::Q4_K, 288, DType::BF16), DType::Q5_0);
  EXPECT_EQ(type_for_width(DType::Q4_K, 272, DType::BF16), DType::BF16);
  EXPECT_EQ(type_for_width(DType::Q4_K, 272, DType::Q8_0), DType::F16);
  EXPECT_EQ(choices[1].type, DType::Q8_0);
}

TEST(Mix, NamesAreFoundInAnyCaseAndByTheirShortForms) {
  EXPECT_EQ(find_mix("q4_k_m")->name, "Q4_K_M");
  EXPECT_EQ(find_mix("Q5_K")->name, "Q5_K_M");
  EXPECT_EQ(find_mix("LOSSLESS")->name, "lossless");
  EXPECT_EQ(find_mix("Q4_K_X"), nullptr);
}

}  // namespace
}  // namespace quern
