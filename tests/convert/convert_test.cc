#include "convert/convert.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "convert/parts/part.h"
#include "convert/plan/plan_checks.h"
#include "convert/plan/plan_json.h"
#include "convert/report_json.h"
#include "formats/gguf/gguf.h"
#include "formats/safetensors/safetensors.h"
#include "formats/types/decode.h"
#include "tests/convert/conversion.h"
#include "tests/formats/expect_error.h"

namespace quern::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  if (!fs::exists(folder)) return names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  return names;
}

// The bytes of the one output of this type, made on its own.
std::string hash_of_type(const std::map<std::string, std::string>& files, const std::string& type) {
  for (const auto& [name, sha256] : files) {
    if (name.ends_with("-" + type + ".gguf")) return sha256;
  }
  return "no such file";
}

TEST(Convert, GivesTheSameBytesOnAnyNumberOfThreadsAndAnyBudget) {
  const TempDir dir;
  std::map<std::string, std::string> first;
  int run = 0;
  for (const int threads : {1, 2, 8}) {
    for (const uint64_t extra : {uint64_t{8} << 20, uint64_t{2} << 30}) {
      const fs::path folder = dir / std::to_string(run++);
      PlanOptions options = options_for(folder, {"Q3_K_M", "Q8_0", "lossless"});
      const std::unique_ptr<ModelSource> source = open_model(bundled("mini-v4"));
      options.memory_bytes = plan_for(*source, bundled("mini-v4"), options).base_bytes + extra;
      convert(bundled("mini-v4"), options, threads);
      if (first.empty()) first = hashes(folder);
      EXPECT_EQ(hashes(folder), first) << threads << " threads, " << extra << " bytes";
    }
  }
}

TEST(Convert, GivesTheSameBytesInAnyCombinationOfTypes) {
  const TempDir dir;
  const std::vector<std::string> types = {"Q2_K", "Q4_K_M", "Q6_K", "Q4_0", "F16", "BF16"};
  convert(bundled("mini-qwen3moe"), options_for(dir / "all", types));
  const auto all = hashes(dir / "all");
  for (const std::string& type : types) {
    convert(bundled("mini-qwen3moe"), options_for(dir / type, {type}));
    EXPECT_EQ(hash_of_type(hashes(dir / type), type), hash_of_type(all, type)) << type;
  }
}

TEST(Convert, ReadsEveryStoredByteOnce) {
  const TempDir dir;
  for (const char* model : {"mini-v4", "mini-v3", "mini-mixtral", "mini-llama3"}) {
    const ConvertReport report = convert(bundled(model), options_for(dir / model, {"Q4_K_M", "Q8_0", "BF16"}));
    EXPECT_EQ(report.bytes_read, report.stored_bytes) << model;
  }
}

TEST(Convert, ProvesLosslessOutputsBitForBit) {
  const TempDir dir;
  const ConvertReport report = convert(bundled("mini-v4"), options_for(dir.path(), {"lossless"}));
  const OutputReport& output = report.outputs.at(0);
  EXPECT_TRUE(output.lossless);
  EXPECT_EQ(output.relative_error, 0);
  const std::unique_ptr<ModelSource> original = open_model(bundled("mini-v4"));
  EXPECT_EQ(output.exact_tensors, static_cast<int64_t>(original->tensors().size()));

  // and independently: what the file decodes to has the bits of what the checkpoint decodes to
  const std::unique_ptr<ModelSource> written = open_model(file_ending(dir.path(), "-lossless-MXFP4.gguf"));
  RawRows raw;
  for (size_t t = 0; t < original->tensors().size(); ++t) {
    const LogicalTensor& tensor = original->tensors()[t];
    ASSERT_EQ(written->tensors()[t].name, tensor.name);
    if (tensor.keep == Keep::kInteger) continue;
    std::vector<float> a(static_cast<size_t>(tensor.shape.n_elements())), b(a.size());
    original->fetch(t, 0, tensor.shape.n_rows(), raw);
    original->decode(raw, a);
    written->fetch(t, 0, tensor.shape.n_rows(), raw);
    written->decode(raw, b);
    EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << tensor.name;
  }
}

TEST(Convert, WritesSumsOfTheBytesInTheFiles) {
  const TempDir dir;
  convert(bundled("mini-qwen3moe"), options_for(dir.path(), {"Q4_K_M"}));
  convert(bundled("mini-qwen3moe"), options_for(dir.path(), {"Q8_0"}));  // a second run keeps the lines of the first
  const std::string sums = read_text_file(dir / "SHA256SUMS", 1 << 20);
  for (const auto& [name, sha256] : hashes(dir.path())) {
    if (name == "SHA256SUMS") continue;
    EXPECT_THAT(sums, HasSubstr(sha256 + "  " + name + "\n"));
  }
  const json list = json::parse(read_text_file(file_ending(dir.path(), "-Q4_K_M.tensors.json"), 1 << 20));
  EXPECT_EQ(list.at("schema"), "quern.tensors/1");
  const Bytes file = read_file(file_ending(dir.path(), "-Q4_K_M.gguf"), 1 << 30);
  bool stacked = false;
  for (const json& tensor : list.at("tensors")) {
    const auto bytes = std::span(file).subspan(tensor.at("offset").get<size_t>(), tensor.at("size_bytes").get<size_t>());
    EXPECT_EQ(tensor.at("sha256"), sha256_hex(bytes)) << tensor.at("name");
    if (!tensor.contains("slices")) continue;
    const json& slices = tensor.at("slices");
    const size_t size = bytes.size() / slices.size();
    double squared_error = 0;
    for (size_t i = 0; i < slices.size(); ++i) {
      EXPECT_EQ(slices[i].at("sha256"), sha256_hex(bytes.subspan(i * size, size)));
      squared_error += slices[i].at("squared_error").get<double>();
    }
    EXPECT_NEAR(squared_error, tensor.at("squared_error").get<double>(), 1e-9 * squared_error);
    stacked = true;
  }
  EXPECT_TRUE(stacked);
  const json& pieces = list.at("files")[0].at("pieces_sha256");
  ASSERT_EQ(pieces.size(), (file.size() + (1 << 20) - 1) >> 20);
  for (size_t i = 0; i < pieces.size(); ++i) {
    const auto piece = std::span(file).subspan(i << 20);
    EXPECT_EQ(pieces[i], sha256_hex(piece.first(std::min<size_t>(piece.size(), 1 << 20))));
  }
}

// In one run, and in parts that divide the tensor: what was cut is counted once and stands in report, JSON and list.
TEST(Convert, NamesTensorsWithWeightsThatF16CannotHold) {
  const TempDir dir;
  std::vector<float> weights(256 * 64, 0.5F);
  weights[7] = 1e6F;
  weights[256 * 63] = -3e38F;
  GgufBuilder file;
  file.set("general.architecture", std::string("llama"));
  file.add("blk.0.ffn_up.weight", DType::F32, {64, 256}, floats_to_bytes(weights));
  file.add("blk.0.ffn_gate.weight", DType::F32, {64, 256}, floats_to_bytes(std::vector<float>(256 * 64, 0.25F)));
  write_bytes(dir / "m.gguf", file.file());
  const std::unique_ptr<ModelSource> source = open_model(dir / "m.gguf");
  const ConvertReport report = convert(dir / "m.gguf", options_for(dir / "whole", {"F16", "BF16"}));
  ASSERT_EQ(report.outputs[0].cuts.size(), 1U);
  EXPECT_EQ(report.outputs[0].cuts[0].tensor, "blk.0.ffn_up.weight");
  EXPECT_EQ(report.outputs[0].cuts[0].cut.n, 2);
  EXPECT_FLOAT_EQ(static_cast<float>(report.outputs[0].cuts[0].cut.largest), -3e38F);
  EXPECT_TRUE(report.outputs[1].cuts.empty());
  const json list = json::parse(read_text_file(file_ending(dir / "whole", "-F16.tensors.json"), 1 << 20));
  EXPECT_EQ(list.at("tensors")[0].at("cut").at("weights"), 2);
  EXPECT_FALSE(list.at("tensors")[1].contains("cut"));
  EXPECT_EQ(json::parse(report_to_json(report)).at("outputs")[0].at("cut")[0].at("weights"), 2);

  Plan plan = plan_for(*source, dir / "m.gguf", options_for(dir / "merged", {"F16", "BF16"}));
  for (PlannedTensor& tensor : plan.tensors) tensor.chunk_rows = 8;
  std::vector<fs::path> indexes;
  for (int k = 1; k <= 3; ++k) indexes.push_back(run_part(*source, plan, k, 3, dir / "parts", no_progress()).index);
  const ConvertReport merged = merge_parts(plan, indexes, no_progress());
  ASSERT_EQ(merged.outputs[0].cuts.size(), 1U);
  EXPECT_EQ(merged.outputs[0].cuts[0].cut.n, 2);
  EXPECT_EQ(hashes(dir / "merged"), hashes(dir / "whole"));
}

TEST(Convert, RecordsHowAFileWasMade) {
  const TempDir dir;
  PlanOptions options = options_for(dir.path(), {"Q4_K_M"});
  options.tensor_types = {"ffn_up=Q5_0"};
  convert(bundled("mini-llama3"), options);
  const gguf::File file(file_ending(dir.path(), ".gguf"));
  EXPECT_EQ(file.metadata().get_int("general.file_type"), 15);
  EXPECT_EQ(file.metadata().get_int("general.quantization_version"), 2);
  EXPECT_EQ(file.metadata().get_string("quern.recipe"), "Q4_K_M");
  const Recipe recipe = recipe_from_json(file.metadata().get_string("quern.recipe.json"));
  EXPECT_EQ(recipe.rules[0].name, "ffn_up");
  EXPECT_EQ(to_string(recipe.rules[1].type), "mix:Q4_K_M");
  EXPECT_EQ(file.metadata().get_string("quern.recipe.sha256"), recipe_id(recipe));
  EXPECT_TRUE(file.metadata().find_string("quern.version").has_value());
  EXPECT_GE(file.metadata().get_int("quern.encoder.Q4_K"), 1);
  EXPECT_EQ(file.find("blk.0.ffn_up.weight")->dtype, DType::Q5_0);
}

TEST(Convert, AFileIsRebuiltFromTheRecipeThatItHolds) {
  const TempDir dir;
  PlanOptions options = options_for(dir / "first", {"Q4_K_S", "lossless"});
  options.effort = Effort::kFast;
  options.recipes = {load_recipe("dynamic-2bit"), load_recipe("dynamic-4bit")};
  options.tensor_types = {"blk\\.1\\..*ffn_up=Q5_0"};
  convert(bundled("mini-qwen3moe"), options);
  PlanOptions again = options_for(dir / "again", {});
  for (const auto& [name, sha256] : hashes(dir / "first")) {
    if (name.ends_with(".gguf")) again.recipes.push_back(load_recipe(dir / "first" / name));
  }
  ASSERT_EQ(again.recipes.size(), 4u);
  convert(bundled("mini-qwen3moe"), again);
  EXPECT_EQ(hashes(dir / "again"), hashes(dir / "first"));
}

TEST(Convert, TheEffortIsOneForAllOutputs) {
  const TempDir dir;
  Recipe best = load_recipe("Q8_0");
  best.effort = "best";
  PlanOptions options = options_for(dir.path(), {"IQ4_XS"});
  options.recipes = {best};
  const std::unique_ptr<ModelSource> source = open_model(bundled("mini-llama3"));
  std::vector<Problem> problems;
  make_plan(*source, bundled("mini-llama3"), options, problems);
  EXPECT_THAT(messages(problems), HasSubstr("different efforts; --effort decides for all"));
  options.types.clear();
  const Plan plan = plan_for(*source, bundled("mini-llama3"), options);
  EXPECT_EQ(plan.effort, Effort::kBest);
  EXPECT_EQ(plan.outputs[0].metadata.get_string("quern.effort"), "best");
  EXPECT_EQ(plan_from_json(plan_to_json(plan)).effort, Effort::kBest);
}

TEST(Convert, RecipesGiveFilesTheirNameAndTheTypeOfMostWeights) {
  const TempDir dir;
  PlanOptions options = options_for(dir.path(), {});
  options.recipes = {recipe_from_json(R"({"schema": "quern.recipe/1", "name": "five", "rules": [{"role": "embedding", "type": "F16"},
                                                                                                {"type": "Q5_0"}]})")};
  convert(bundled("mini-v3"), options);
  const gguf::File file(file_ending(dir.path(), "-five.gguf"));
  EXPECT_EQ(file.metadata().get_int("general.file_type"), find_mix("Q5_0")->file_type);
  EXPECT_EQ(file.metadata().get_string("quern.recipe"), "five");
}

TEST(Convert, SplitSetsHoldTheSameTensors) {
  const TempDir dir;
  convert(bundled("mini-llama3"), options_for(dir / "whole", {"Q8_0"}));
  PlanOptions options = options_for(dir / "split", {"Q8_0"});
  options.split_bytes = 300'000;
  options.metadata_shard = true;
  const ConvertReport report = convert(bundled("mini-llama3"), options);
  const gguf::File whole(file_ending(dir / "whole", ".gguf"));
  const gguf::File split(dir / "split" / report.outputs[0].files[0].name);
  ASSERT_EQ(split.files().size(), report.outputs[0].files.size());
  ASSERT_GT(split.files().size(), 2u);
  ASSERT_EQ(whole.tensors().size(), split.tensors().size());
  for (size_t i = 0; i < whole.tensors().size(); ++i) {
    Bytes a(whole.tensors()[i].size_bytes), b(split.tensors()[i].size_bytes);
    whole.read(whole.tensors()[i], 0, a);
    split.read(split.tensors()[i], 0, b);
    EXPECT_EQ(split.tensors()[i].name, whole.tensors()[i].name);
    EXPECT_EQ(a, b);
  }
}

TEST(Convert, PartialFilesSaySo) {
  const TempDir dir;
  PlanOptions options = options_for(dir.path(), {"Q8_0"});
  options.tensors = "^blk\\.1\\.";
  convert(bundled("mini-llama3"), options);
  const gguf::File file(file_ending(dir.path(), "-partial-Q8_0.gguf"));
  EXPECT_EQ(file.metadata().get_string("quern.partial"), *options.tensors);
  for (const auto& tensor : file.tensors()) EXPECT_TRUE(tensor.name.starts_with("blk.1.")) << tensor.name;
}

TEST(Convert, AGgufGivesTheFileThatItsCheckpointGives) {
  const TempDir dir;
  convert(bundled("mini-llama3"), options_for(dir / "direct", {"Q4_K_M", "BF16"}));
  const fs::path bf16 = file_ending(dir / "direct", "-BF16.gguf");
  PlanOptions options = options_for(dir / "again.gguf", {"Q4_K_M"});
  options.single_file = true;
  convert(bf16, options);
  EXPECT_EQ(sha256_hex(read_file(dir / "again.gguf", 1 << 30)), hash_of_type(hashes(dir / "direct"), "Q4_K_M"));
  EXPECT_FALSE(fs::exists(dir / "SHA256SUMS"));
}

TEST(Convert, NotesThatBlocksAreQuantizedAgain) {
  const TempDir dir;
  convert(bundled("mini-llama3"), options_for(dir.path(), {"Q8_0"}));
  const fs::path q8 = file_ending(dir.path(), "-Q8_0.gguf");
  PlanOptions options = options_for(dir / "again.gguf", {"Q4_K_M"});
  options.single_file = true;
  const Plan plan = plan_for(*open_model(q8), q8, options);
  ASSERT_EQ(plan.notes.size(), 1u);
  EXPECT_THAT(plan.notes[0], HasSubstr("already quantized (Q8_0)"));
}

TEST(Convert, SingleFilesMustBeNamedGguf) {
  const TempDir dir;
  PlanOptions options = options_for(dir / "out.bin", {"Q8_0"});
  options.single_file = true;
  ASSERT_EQ(check_options(options).size(), 1u);
  EXPECT_THAT(check_options(options)[0].message, HasSubstr("must end in .gguf"));
}

// Sets the last BF16 weight of two stored tensors to NaN.
void poison(const fs::path& file, std::initializer_list<const char*> tensors) {
  Bytes bytes = read_file(file, 1 << 30);
  const safetensors::Header header = safetensors::parse_header(bytes, bytes.size());
  for (const TensorInfo& info : header.tensors) {
    for (const char* name : tensors) {
      if (info.name == name) store_le<uint16_t>(bytes.data() + info.file_offset + info.size_bytes - 2, 0x7FC0);
    }
  }
  write_bytes(file, bytes);
}

TEST(Convert, NamesEveryTensorWithNaNAndRemovesWhatItBegan) {
  const TempDir dir;
  const fs::path model = copy_model("mini-llama3", dir / "model");
  poison(model / "model.safetensors", {"model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight"});
  try {
    convert(model, options_for(dir / "out", {"Q8_0", "BF16"}));
    FAIL() << "NaN was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kFormat);
    EXPECT_THAT(error.what(), HasSubstr("2 tensors have weights that are not finite"));
    EXPECT_THAT(error.what(), HasSubstr("'blk.0.ffn_up.weight'"));
    EXPECT_THAT(error.what(), HasSubstr("'blk.1.ffn_down.weight'"));
  }
  EXPECT_THAT(names_in(dir / "out"), ::testing::IsEmpty());
}

TEST(Convert, RefusesASourceThatChangesMeanwhile) {
  const TempDir dir;
  const fs::path model = copy_model("mini-llama3", dir / "model");
  const std::unique_ptr<ModelSource> source = open_model(model);
  const Plan plan = plan_for(*source, model, options_for(dir / "out", {"Q8_0"}));
  fs::last_write_time(model / "model.safetensors", fs::last_write_time(model / "model.safetensors") + std::chrono::seconds(5));
  EXPECT_ERROR(run_plan(*source, plan, no_progress()), ErrorKind::kIo, "changed while it was being read");
  EXPECT_THAT(names_in(dir / "out"), ::testing::IsEmpty());
}

// A plan in parts.

struct Parts {
  explicit Parts(const std::string& model, int n) {
    source = open_model(bundled(model));
    PlanOptions options = options_for(dir / "merged", {"Q4_K_M", "BF16"});
    options.memory_bytes = plan_for(*source, bundled(model), options).base_bytes + (uint64_t{2} << 20);  // many small chunks
    plan = plan_from_json(plan_to_json(plan_for(*source, bundled(model), options)));
    for (int k = 1; k <= n; ++k) indexes.push_back(run_part(*source, plan, k, n, dir / "parts", no_progress()).index);
  }

  TempDir dir;
  std::unique_ptr<ModelSource> source;
  Plan plan;
  std::vector<fs::path> indexes;
};

TEST(Parts, MergeToTheBytesOfOneRun) {
  for (const int n : {1, 3, 11}) {
    Parts parts("mini-v4", n);
    std::reverse(parts.indexes.begin(), parts.indexes.end());  // in any order
    merge_parts(parts.plan, parts.indexes, no_progress());
    convert(bundled("mini-v4"), options_for(parts.dir / "whole", {"Q4_K_M", "BF16"}));
    EXPECT_EQ(hashes(parts.dir / "merged"), hashes(parts.dir / "whole")) << n << " parts";
  }
}

TEST(Parts, AreMissedWhenMissingAndRefusedWhenForeign) {
  Parts parts("mini-llama3", 3);
  std::vector<fs::path> some = {parts.indexes[0], parts.indexes[2]};
  EXPECT_ERROR(merge_parts(parts.plan, some, no_progress()), ErrorKind::kFormat, "part 2 of 3 is missing");
  some = {parts.indexes[0], parts.indexes[1], parts.indexes[1], parts.indexes[2]};
  EXPECT_ERROR(merge_parts(parts.plan, some, no_progress()), ErrorKind::kFormat, "part 2 of 3 was given twice");
  Plan other = parts.plan;
  other.tensors[0].chunk_rows += 1;
  EXPECT_ERROR(merge_parts(other, parts.indexes, no_progress()), ErrorKind::kFormat, "belongs to another plan");
  EXPECT_THAT(names_in(parts.dir / "merged"), ::testing::IsEmpty());
}

TEST(Parts, AreRefusedWhenDamaged) {
  Parts parts("mini-llama3", 2);
  const fs::path data = fs::path(parts.indexes[1]).replace_extension(".bin");
  Bytes bytes = read_file(data, 1 << 30);
  bytes[bytes.size() / 2] ^= std::byte{4};
  write_bytes(data, bytes);
  EXPECT_ERROR(merge_parts(parts.plan, parts.indexes, no_progress()), ErrorKind::kFormat, "is damaged");
  bytes.pop_back();
  write_bytes(data, bytes);
  EXPECT_ERROR(merge_parts(parts.plan, parts.indexes, no_progress()), ErrorKind::kFormat, "expected");
  EXPECT_THAT(names_in(parts.dir / "merged"), ::testing::IsEmpty());
}

}  // namespace
}  // namespace quern::test
