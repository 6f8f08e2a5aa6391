#include "convert/plan/plan.h"
#include "convert/fill/destination.h"
#include "convert/plan/layout.h"
#include "convert/plan/memory.h"

#include <gmock/gmock.h>

#include <chrono>

#include "convert/plan/naming.h"
#include "convert/plan/plan_checks.h"
#include "convert/plan/plan_json.h"
#include "formats/gguf/gguf.h"
#include "tests/convert/conversion.h"
#include "tests/convert/sparse_model.h"
#include "tests/formats/expect_error.h"

namespace quern::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

std::string problems_of(const std::string& model, const PlanOptions& options) {
  const std::unique_ptr<ModelSource> source = open_model(bundled(model));
  std::vector<Problem> problems;
  check_files(make_plan(*source, bundled(model), options, problems), *source, problems);
  return messages(problems);
}

TEST(Plan, SurvivesBeingSavedAndLoaded) {
  const TempDir out;
  const std::unique_ptr<ModelSource> source = open_model(bundled("tiny-v4-flash"));
  PlanOptions options = options_for(out.path(), {"Q4_K_M", "lossless"});
  options.tensor_types = {"ffn_down_exps=Q6_K"};
  options.split_bytes = 4'000'000;
  const Plan plan = plan_for(*source, bundled("tiny-v4-flash"), options);
  const std::string text = plan_to_json(plan);
  const Plan loaded = plan_from_json(text);
  EXPECT_EQ(plan_to_json(loaded), text);
  EXPECT_EQ(plan_id(loaded), plan_id(plan));
  EXPECT_NO_THROW(check_source(loaded, *source));
}

TEST(Plan, RefusesWhatIsNotAPlan) {
  EXPECT_ERROR(plan_from_json("{"), ErrorKind::kFormat, "not valid JSON");
  EXPECT_ERROR(plan_from_json("{}"), ErrorKind::kFormat, "schema");
  EXPECT_ERROR(plan_from_json("{\"schema\": \"quern.plan/9\"}"), ErrorKind::kFormat, "expected 'quern.plan/1'");
}

// A plan of a small model with the value at a JSON pointer replaced.
class SavedPlan {
 public:
  SavedPlan() {
    PlanOptions options = options_for(out_.path(), {"Q8_0"});
    options.tensors = "blk.0.ffn";
    json_ = json::parse(plan_to_json(plan_for(*open_model(bundled("mini-mixtral")), bundled("mini-mixtral"), options)));
  }
  std::string with(const std::string& pointer, const json& value) const {
    json changed = json_;
    changed[json::json_pointer(pointer)] = value;
    return changed.dump();
  }
  const json& at(const std::string& pointer) const { return json_.at(json::json_pointer(pointer)); }

 private:
  TempDir out_;
  json json_;
};

TEST(SavedPlan, RefusesNamesThatLeaveTheFolder) {
  const SavedPlan plan;
  EXPECT_ERROR(plan_from_json(plan.with("/outputs/0/files/0/name", "../elsewhere.gguf")), ErrorKind::kFormat, "not a plain name");
  EXPECT_ERROR(plan_from_json(plan.with("/outputs/0/folder", "..")), ErrorKind::kFormat, "not a plain name");
  // The lists beside the outputs are named by the stem.
  EXPECT_ERROR(plan_from_json(plan.with("/outputs/0/stem", "../elsewhere")), ErrorKind::kFormat, "is not what its tensors give");
}

TEST(SavedPlan, RefusesSizesAndOffsetsThatDoNotFollow) {
  const SavedPlan plan;
  EXPECT_NO_THROW(plan_from_json(plan.with("/force", true)));
  const std::string file = "/outputs/0/files/0/", tensor = "/outputs/0/tensors/1/";
  for (const char* field : {"size_bytes", "data_offset"}) {
    const uint64_t value = plan.at(file + field).get<uint64_t>();
    for (const uint64_t wrong : {uint64_t{0}, value - 32, value + 32, ~uint64_t{0}}) {
      EXPECT_ERROR(plan_from_json(plan.with(file + field, wrong)), ErrorKind::kFormat, "is not what its tensors give");
    }
  }
  EXPECT_ERROR(plan_from_json(plan.with(tensor + "offset", 0)), ErrorKind::kFormat, "is not where the tensors before it end");
  EXPECT_ERROR(plan_from_json(plan.with(tensor + "size_bytes", 1)), ErrorKind::kFormat, "size or file does not match the shape");
  EXPECT_ERROR(plan_from_json(plan.with(tensor + "file", 1)), ErrorKind::kFormat, "size or file does not match the shape");
}

TEST(SavedPlan, RefusesFilesThatDoNotCoverTheTensorsOnce) {
  const SavedPlan plan;
  const uint64_t n = plan.at("/tensors").size();
  json file = plan.at("/outputs/0/files/0");
  const auto files = [&](std::vector<std::pair<uint64_t, uint64_t>> ranges) {
    json list = json::array();
    for (const auto& [first, count] : ranges) {
      file["first_tensor"] = first;
      file["n_tensors"] = count;
      list.push_back(file);
    }
    return plan.with("/outputs/0/files", list);
  };
  EXPECT_ERROR(plan_from_json(files({})), ErrorKind::kFormat, "size or file does not match the shape");
  EXPECT_ERROR(plan_from_json(files(std::vector<std::pair<uint64_t, uint64_t>>(65536))), ErrorKind::kFormat, "impossible number of files");
  EXPECT_ERROR(plan_from_json(files({{0, n - 1}})), ErrorKind::kFormat, "leaves tensors out");
  EXPECT_ERROR(plan_from_json(files({{0, n + 1}})), ErrorKind::kFormat, "do not hold the tensors in order");
  EXPECT_ERROR(plan_from_json(files({{1, n}})), ErrorKind::kFormat, "do not hold the tensors in order");
  EXPECT_ERROR(plan_from_json(files({{0, 0}, {n + 7, 0}, {0, n}})), ErrorKind::kFormat, "is not what its tensors give");
  // The counts add up, modulo 2^64.
  EXPECT_ERROR(plan_from_json(files({{0, ~uint64_t{0}}, {~uint64_t{0}, n + 1}})), ErrorKind::kFormat, "do not hold the tensors in order");
}

TEST(SavedPlan, RefusesCountsThatNoRunCouldHold) {
  const SavedPlan plan;
  EXPECT_ERROR(plan_from_json(plan.with("/outputs", json::array())), ErrorKind::kFormat, "there are no outputs");
  EXPECT_ERROR(plan_from_json(plan.with("/tensors/0/chunk_rows", 0)), ErrorKind::kFormat, "impossible shape, slices or chunk_rows");
  for (const double number : {1e300, -1.0, 1.5}) {
    EXPECT_ERROR(plan_from_json(plan.with("/tensors/0/source_bytes", number)), ErrorKind::kFormat, "is not a whole number");
  }
  EXPECT_ERROR(plan_from_json(plan.with("/tensors/0/n_slices", int64_t{1} << 40)), ErrorKind::kFormat, "impossible shape, slices");
  EXPECT_ERROR(plan_from_json(plan.with("/tensors/0/shape", {int64_t{1} << 40, 256})), ErrorKind::kFormat, "does not match the shape");
  EXPECT_ERROR(plan_from_json(plan.with("/tensors/0/source_bytes", ~uint64_t{0})), ErrorKind::kFormat, "bytes of the source overflows");
}

TEST(SavedPlan, RefusesMetadataThatIsNotOfItsType) {
  const SavedPlan plan;
  const auto with_value = [&](const char* type, const json& value) {
    return plan.with("/metadata/0", {{"key", "k"}, {"type", type}, {"value", value}});
  };
  for (const char* hex : {"z0", "0z", "zz", "-1", " 1", "0x", "616"}) {
    EXPECT_ERROR(plan_from_json(with_value("str", {{"hex", hex}})), ErrorKind::kFormat, "is not pairs of hex digits");
  }
  EXPECT_ERROR(plan_from_json(with_value("u8", 256)), ErrorKind::kFormat, "metadata value 256 is out of range");
  EXPECT_ERROR(plan_from_json(with_value("u32", -1)), ErrorKind::kFormat, "a number -1 is out of range");
  EXPECT_ERROR(plan_from_json(with_value("i64", 1.5)), ErrorKind::kFormat, "is not a whole number");
  EXPECT_ERROR(plan_from_json(with_value("f32", 1e300)), ErrorKind::kFormat, "is out of range");
  EXPECT_ERROR(plan_from_json(with_value("i32[]", {1, "2"})), ErrorKind::kFormat, "is not a whole number");
  EXPECT_ERROR(plan_from_json(with_value("i32[][]", json::array())), ErrorKind::kFormat, "unknown metadata type 'i32[][]'");
  json many = json::array();
  for (int i = 0; i < gguf::kMaxKeys + 1; ++i) many.push_back({{"key", std::to_string(i)}, {"type", "u8"}, {"value", 1}});
  EXPECT_ERROR(plan_from_json(plan.with("/metadata", many)), ErrorKind::kFormat, "16385 metadata keys are more than 16384");
}

TEST(SavedPlan, RefusesDeepNestingAndKeysThatOccurTwice) {
  EXPECT_ERROR(plan_from_json(std::string(100000, '[')), ErrorKind::kFormat, "nested deeper than 8 levels");
  EXPECT_ERROR(plan_from_json(R"({"schema": "quern.plan/1", "schema": "quern.plan/1"})"), ErrorKind::kFormat, "occurs twice");
}

TEST(SavedPlan, IsOfOneSourceOnly) {
  const SavedPlan plan;
  const std::unique_ptr<ModelSource> source = open_model(bundled("mini-mixtral"));
  const auto check = [&](const std::string& pointer, const json& value) {
    check_source(plan_from_json(plan.with(pointer, value)), *source);
  };
  EXPECT_NO_THROW(check("/force", true));
  const auto stack = [&](const char* field) {
    size_t t = 0;
    while (plan.at("/tensors/" + std::to_string(t) + "/n_slices") == 1) ++t;
    return "/tensors/" + std::to_string(t) + "/" + field;
  };
  EXPECT_ERROR(check(stack("n_slices"), 1), ErrorKind::kFormat, "differs");
  EXPECT_ERROR(check(stack("source_bytes"), 1), ErrorKind::kFormat, "differs");
  EXPECT_ERROR(check(stack("integer"), true), ErrorKind::kFormat, "differs");
  EXPECT_ERROR(check(stack("source_index"), 1 << 20), ErrorKind::kFormat, "differs");
  EXPECT_ERROR(check("/outputs/0/tensors/0/copied", !plan.at("/outputs/0/tensors/0/copied").get<bool>()), ErrorKind::kFormat,
               "is stored otherwise");
}

TEST(Plan, NoticesAChangedSource) {
  const TempDir dir;
  const fs::path model = copy_model("mini-llama3", dir / "model");
  const Plan plan = plan_for(*open_model(model), model, options_for(dir / "out", {"Q8_0"}));
  Bytes bytes = read_file(model / "model.safetensors", 1 << 30);
  bytes.back() ^= std::byte{1};
  write_bytes(model / "model.safetensors", bytes);
  EXPECT_ERROR(check_source(plan, *open_model(model)), ErrorKind::kFormat, "'model.safetensors' has changed");
}

TEST(Plan, ReportsAllProblemsTogether) {
  const TempDir out;
  PlanOptions options = options_for(out.path(), {"Q4_K_X", "Q8_0", "q8_0"});
  options.tensor_types = {"ffn_(down=Q8_0", "ffn_down=Q8_O", "nothing_like_this=Q8_0", "attn_norm=Q8_0", "no type"};
  options.tensors = "ffn_(";
  options.memory_bytes = 1;
  write_text(out / "Llama3-Mini-1.4M-Q8_0.gguf", "in the way");
  const std::string problems = problems_of("mini-llama3", options);
  EXPECT_THAT(problems, HasSubstr("unknown type 'Q4_K_X'; did you mean 'Q4_K_M'?"));
  EXPECT_THAT(problems, HasSubstr("type Q8_0 is asked for twice"));
  EXPECT_THAT(problems, HasSubstr("--tensor-type: 'ffn_(down' is not a regular expression"));
  EXPECT_THAT(problems, HasSubstr("--tensor-type: unknown type 'Q8_O'; did you mean 'Q8_0'?"));
  EXPECT_THAT(problems, HasSubstr("'nothing_like_this' matches none of the model's tensors"));
  EXPECT_THAT(problems, HasSubstr("'attn_norm' matches only tensors that are never quantized"));
  EXPECT_THAT(problems, HasSubstr("'no type' is not REGEX=TYPE"));
  EXPECT_THAT(problems, HasSubstr("--tensors: 'ffn_(' is not a regular expression"));
  EXPECT_THAT(problems, HasSubstr("the smallest that works is"));
}

// A model with rows of 272 weights in ffn_down, which no block divides, and of 288 in attn_output, which only small blocks do.
Plan plan_of_odd_widths(const TempDir& dir, const PlanOptions& options) {
  GgufBuilder file;
  file.set("general.architecture", std::string("llama")).set("llama.block_count", uint32_t{1});
  file.add_zeros("token_embd.weight", DType::BF16, {8, 256}).add_zeros("output.weight", DType::BF16, {8, 256});
  file.add_zeros("blk.0.attn_output.weight", DType::BF16, {256, 288}).add_zeros("blk.0.attn_norm.weight", DType::F32, {256});
  file.add_zeros("blk.0.ffn_down.weight", DType::BF16, {256, 272}).add_zeros("blk.0.ffn_up.weight", DType::BF16, {272, 256});
  write_bytes(dir / "m.gguf", file.file());
  return plan_for(*open_model(dir / "m.gguf"), dir / "m.gguf", options);
}

TEST(PlanNotes, SayWhichTypesOddRowsGet) {
  const TempDir dir;
  const Plan plan = plan_of_odd_widths(dir, options_for(dir / "out", {"Q4_K_M"}));
  EXPECT_EQ(plan.notes.size(), 1U);
  EXPECT_THAT(plan.notes.back(), HasSubstr("Q4_K_M: blocks do not divide the rows of 2 tensors, 66.0 % of the weights"));
  EXPECT_THAT(plan.notes.back(), HasSubstr("Q5_0 instead of Q4_K (1), BF16 instead of Q6_K (1)"));
  EXPECT_THAT(plan.notes.back(), HasSubstr("the first is 'blk.0.attn_output.weight' with rows of 288"));
  EXPECT_TRUE(plan.warnings.empty());
  EXPECT_TRUE(plan_of_odd_widths(dir, options_for(dir / "out", {"BF16"})).notes.empty());
}

TEST(PlanNotes, WarnOfTensorTypesThatCannotBeHad) {
  const TempDir dir;
  PlanOptions options = options_for(dir / "out", {"Q4_K_M", "Q8_0"});
  options.tensor_types = {"ffn_down=Q4_K", "ffn_d.wn=Q6_K"};
  const Plan plan = plan_of_odd_widths(dir, options);
  ASSERT_EQ(plan.warnings.size(), 2U) << "once for both outputs";
  EXPECT_THAT(plan.warnings[0], HasSubstr("'ffn_d.wn' decides nothing: earlier ones match all its tensors"));
  EXPECT_THAT(plan.warnings[1], HasSubstr("'ffn_down=Q4_K' cannot be had for 1 tensor"));
  EXPECT_THAT(plan.warnings[1], HasSubstr("BF16 instead of Q4_K"));
  EXPECT_EQ(plan_from_json(plan_to_json(plan)).warnings, plan.warnings);
}

TEST(PlanNotes, TellPatternsThatFindMoreThanAWord) {
  const TempDir dir;
  const auto notes = [&](const std::string& pattern) {
    PlanOptions options = options_for(dir / "out", {"BF16"});
    options.tensor_types = {pattern + "=F16"};
    std::string text;
    for (const std::string& note : plan_of_odd_widths(dir, options).notes) text += note + "\n";
    return text;
  };
  EXPECT_THAT(notes("output"), HasSubstr("also decides 1 tensor with longer words, such as 'blk.0.attn_output.weight'"));
  EXPECT_EQ(notes("(^|\\.)output(\\.|$)"), "") << "the advice";
  EXPECT_EQ(notes("^output"), "");
  EXPECT_EQ(notes("ffn_down"), "");
  EXPECT_EQ(notes("ffn_"), "") << "no whole word";
  EXPECT_EQ(notes("blk.0"), "");
}

TEST(PlanNotes, TellRulesOfARecipeThatDecideNothing) {
  const TempDir dir;
  PlanOptions options = options_for(dir / "out", {});
  options.recipes = {recipe_from_json(R"({"schema": "quern.recipe/1", "name": "r", "rules": [
    {"name": "ffn_up", "type": "Q8_0"}, {"name": "ffn_gate", "type": "Q8_0"}, {"type": "BF16"}]})")};
  const Plan plan = plan_of_odd_widths(dir, options);
  ASSERT_EQ(plan.notes.size(), 1U);
  EXPECT_THAT(plan.notes[0], HasSubstr("recipe r: rule 2 ('ffn_gate') decides no tensor"));
}

TEST(Plan, RefusesToQuantizeWhatHasNoKnownMatrix) {
  const TempDir dir;
  write_bytes(dir / "m.gguf", GgufBuilder()
                                  .set("general.architecture", std::string("flux"))
                                  .add_zeros("double_blocks.0.img_attn.qkv.weight", DType::F32, {256, 256})
                                  .file());
  const std::unique_ptr<ModelSource> source = open_model(dir / "m.gguf");
  std::vector<Problem> problems;
  make_plan(*source, dir / "m.gguf", options_for(dir / "out", {"Q4_K_M"}), problems);
  EXPECT_THAT(messages(problems), HasSubstr("may be quantized (architecture 'flux')"));
  problems.clear();
  make_plan(*source, dir / "m.gguf", options_for(dir / "out", {"F16"}), problems);
  EXPECT_EQ(messages(problems), "");
}

TEST(Plan, TellsOverriddenMixesFromPlainOnesByName) {
  const TempDir out;
  PlanOptions options = options_for(out.path(), {"Q4_K_M", "lossless"});
  options.tensor_types = {"ffn_down=Q6_K"};
  const std::unique_ptr<ModelSource> source = open_model(bundled("mini-llama3"));
  std::vector<Problem> problems;
  const Plan plan = make_plan(*source, bundled("mini-llama3"), options, problems);
  ASSERT_EQ(plan.outputs.size(), 2u) << messages(problems);
  EXPECT_EQ(plan.outputs[0].label, "Q4_K_M-custom");
  EXPECT_THAT(plan.outputs[0].files.front().name, testing::EndsWith("-Q4_K_M-custom.gguf"));
  EXPECT_EQ(plan.outputs[0].metadata.find_string("quern.recipe"), "Q4_K_M");
  EXPECT_EQ(plan.outputs[1].label, "lossless-BF16");
}

TEST(Plan, RefusesTwoOutputsOfOneName) {
  const TempDir out;
  PlanOptions options = options_for(out.path(), {});
  options.recipes = {load_recipe("dynamic-2bit"), load_recipe("dynamic-2bit")};
  for (const bool one_by_one : {false, true}) {
    options.one_by_one = one_by_one;
    EXPECT_THAT(problems_of("mini-mixtral", options), HasSubstr("two outputs are named 'Mini-Mixtral-4x1.8M-dynamic-2bit.gguf'"));
  }
}

TEST(Plan, TheSmallestBudgetThatItNamesWorks) {
  const TempDir out;
  PlanOptions options = options_for(out.path(), {"Q8_0"});
  options.memory_bytes = 1;
  const std::string problem = problems_of("mini-v4", options);
  const size_t at = problem.find("works is ");
  ASSERT_NE(at, std::string::npos) << problem;
  // The plan counts the memory that this process has used so far, which grows a little with every plan.
  options.memory_bytes = (std::stoull(problem.substr(at + 9)) + 8) << 20;
  EXPECT_EQ(problems_of("mini-v4", options), "");
}

TEST(Plan, RefusesToReplaceFilesWithoutForce) {
  const TempDir out;
  PlanOptions options = options_for(out.path(), {"Q8_0"});
  convert(bundled("mini-llama3"), options);
  EXPECT_THAT(problems_of("mini-llama3", options), HasSubstr("exists; --force replaces it"));
  options.force = true;
  EXPECT_EQ(problems_of("mini-llama3", options), "");
}

TEST(Plan, RefusesAnOutputFolderInsideTheSource) {
  const TempDir dir;
  const fs::path model = copy_model("mini-llama3", dir / "model");
  const std::unique_ptr<ModelSource> source = open_model(model);
  std::vector<Problem> problems;
  check_files(make_plan(*source, model, options_for(model / "deep" / ".." / "out", {"Q8_0"}), problems), *source, problems);
  EXPECT_THAT(messages(problems), HasSubstr("lies inside the source folder"));
}

TEST(Plan, RefusesToQuantizeAFileOntoItself) {
  const TempDir out;
  convert(bundled("mini-llama3"), options_for(out.path(), {"BF16"}));
  const fs::path file = file_ending(out.path(), ".gguf");
  PlanOptions options = options_for(file, {"Q8_0"});
  options.single_file = true;
  options.force = true;
  std::vector<Problem> problems;
  const std::unique_ptr<ModelSource> source = open_model(file);
  check_files(make_plan(*source, file, options, problems), *source, problems);
  EXPECT_THAT(messages(problems), HasSubstr("would replace the file that is read"));
}

TEST(Plan, RefusesLosslessForScalesThatAreNotPowersOfTwo) {
  const TempDir out;
  const std::string problems = problems_of("mini-v3", options_for(out.path(), {"Q8_0", "lossless"}));
  EXPECT_THAT(problems, HasSubstr("lossless is impossible"));
  EXPECT_THAT(problems, HasSubstr("'blk.0.attn_k_b.weight'"));
  EXPECT_THAT(problems, HasSubstr("2^-8"));
  EXPECT_THAT(problems, HasSubstr("use --type BF16"));
}

TEST(Plan, SplitsByTensorBytesAndCanKeepTheFirstFileSmall) {
  const TempDir out;
  const std::unique_ptr<ModelSource> source = open_model(bundled("mini-llama3"));
  PlanOptions options = options_for(out.path(), {"BF16"});
  options.split_bytes = 500'000;
  options.metadata_shard = true;
  const Plan plan = plan_for(*source, bundled("mini-llama3"), options);
  const PlannedOutput& output = plan.outputs[0];
  ASSERT_GT(output.files.size(), 3u);
  EXPECT_EQ(output.files[0].n_tensors, 0u);
  EXPECT_EQ(output.files[0].size_bytes, output.files[0].data_offset);
  EXPECT_THAT(output.files[1].name, HasSubstr("-BF16-00002-of-"));
  for (const PlannedFile& file : output.files) {
    EXPECT_TRUE(file.n_tensors <= 1 || file.size_bytes - file.data_offset <= options.split_bytes) << file.name;
  }
}

TEST(Plan, NamesFilesByTheNamingConvention) {
  Metadata metadata;
  EXPECT_EQ(output_stem(metadata, false, false, "Q8_0"), "model-Q8_0");
  metadata.set("general.name", std::string("DeepSeek V4 Flash"));
  EXPECT_EQ(output_stem(metadata, true, false, "Q8_0"), "mtp-DeepSeek-V4-Flash-Q8_0");
  metadata.set("general.basename", std::string("DeepSeek"));
  metadata.set("general.size_label", std::string("256x1.1B"));
  metadata.set("general.version", std::string("v4"));
  EXPECT_EQ(output_stem(metadata, false, true, "Q4_K_M"), "DeepSeek-256x1.1B-v4-partial-Q4_K_M");
  metadata.set("general.basename", std::string("../..//etc\n"));
  EXPECT_EQ(output_stem(metadata, false, false, "F16"), "etc-256x1.1B-v4-F16");
}

// Sizes computed by hand from the published shapes: experts as MXFP4, the rest BF16, what steers the model F32.
TEST(Plan, ReproducesTheLosslessSizesOfDeepSeekV4) {
  for (const auto& [config, bytes] :
       {std::pair{"deepseek-v4-flash", uint64_t{161'864'270'172}}, std::pair{"deepseek-v4-pro", uint64_t{873'440'216'460}}}) {
    const TempDir dir;
    fs::create_directory(dir / "model");
    const size_t n_stored = write_sparse_v4(dir / "model", shipped_config(config), 64, DType::BF16);
    const auto written = std::chrono::steady_clock::now();
    const std::unique_ptr<ModelSource> source = open_model(dir / "model");
    std::vector<Problem> problems;
    const Plan plan = make_plan(*source, dir / "model", options_for(dir / "out", {"Q4_K_M", "lossless"}), problems);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - written).count();
    EXPECT_EQ(plan.outputs[1].tensor_bytes, bytes) << config;
    EXPECT_GT(n_stored, 60'000u);
    EXPECT_LT(seconds, 30) << n_stored << " tensors";
    EXPECT_LE(predicted_memory(plan, 8), plan.memory_bytes);
    RecordProperty(std::string(config) + "_plan_seconds", std::to_string(seconds));
  }
}

}  // namespace
}  // namespace quern::test
