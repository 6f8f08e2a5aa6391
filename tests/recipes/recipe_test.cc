#include "recipes/recipe.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/gguf/gguf.h"
#include "recipes/shipped.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const fs::path kRecipes = fs::path(QUERN_TEST_DATA) / "../../recipes";

LogicalTensor tensor(std::string name, Shape shape, Role role, Keep keep = Keep::kMix) {
  LogicalTensor t;
  t.name = std::move(name);
  t.shape = shape;
  t.role = role;
  t.keep = keep;
  t.source_type = DType::BF16;
  if (t.name.starts_with("blk.")) t.layer = std::stoll(t.name.substr(4));
  return t;
}

// Eight layers of a small mixture of experts.
std::vector<LogicalTensor> moe() {
  std::vector<LogicalTensor> tensors = {tensor("token_embd.weight", {1000, 256}, Role::kTokenEmbedding),
                                        tensor("output.weight", {1000, 256}, Role::kOutput)};
  for (int i = 0; i < 8; ++i) {
    const std::string block = "blk." + std::to_string(i) + ".";
    tensors.push_back(tensor(block + "attn_k_b.weight", {8, 64, 128}, Role::kAttention));
    tensors.push_back(tensor(block + "ffn_gate_inp.weight", {8, 256}, Role::kRouter, Keep::kSource));
    for (const char* part : {"gate", "up", "down"}) {
      tensors.push_back(tensor(block + "ffn_" + part + "_exps.weight", {8, 256, 256}, Role::kRoutedExpert));
      tensors.push_back(tensor(block + "ffn_" + part + "_shexp.weight", {256, 256}, Role::kSharedExpert));
    }
    tensors.push_back(tensor(block + "attn_norm.weight", {256}, Role::kNorm, Keep::kF32));
  }
  return tensors;
}

Metadata metadata() {
  Metadata metadata;
  metadata.set("general.architecture", std::string("test"));
  metadata.set("test.block_count", uint32_t{8});
  return metadata;
}

Recipe rules(const std::string& list) { return recipe_from_json(R"({"schema": "quern.recipe/1", "name": "r", "rules": [)" + list + "]}"); }

std::string type_of(const Recipe& recipe, const std::string& name, bool have_imatrix = false) {
  const std::vector<LogicalTensor> tensors = moe();
  const auto choices = choose_types(recipe, metadata(), tensors, have_imatrix);
  for (size_t k = 0; k < tensors.size(); ++k) {
    if (tensors[k].name == name) return std::string(name_of(choices[k].type));
  }
  return "";
}

std::string error_of(const std::string& text) {
  try {
    recipe_from_json(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kFormat);
    return error.what();
  }
  return "";
}

std::string rule_error(const std::string& rule) {
  return error_of(R"({"schema": "quern.recipe/1", "name": "r", "rules": [)" + rule + "]}");
}

std::string kind_error(const Recipe& recipe, ErrorKind kind, const AskExactness& exactness = {}) {
  try {
    choose_types(recipe, metadata(), moe(), false, exactness);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    return error.what();
  }
  return "";
}

TEST(Recipe, TheFirstRuleThatMatchesDecides) {
  const Recipe recipe = rules(R"({"role": "routed-expert", "part": "down", "layers": [0, [-2, -1]], "type": "Q6_K"},
                                 {"role": ["routed-expert", "shared-expert"], "part": "down", "type": "Q4_K"},
                                 {"name": "^blk\\.3\\.ffn_(gate|up)_exps", "type": "Q2_K"},
                                 {"role": "routed-expert", "layers": ["50%-100%"], "type": "Q3_K"},
                                 {"type": "Q8_0"})");
  EXPECT_EQ(type_of(recipe, "blk.0.ffn_down_exps.weight"), "Q6_K");
  EXPECT_EQ(type_of(recipe, "blk.6.ffn_down_exps.weight"), "Q6_K");
  EXPECT_EQ(type_of(recipe, "blk.5.ffn_down_exps.weight"), "Q4_K");
  EXPECT_EQ(type_of(recipe, "blk.5.ffn_down_shexp.weight"), "Q4_K");
  EXPECT_EQ(type_of(recipe, "blk.3.ffn_up_exps.weight"), "Q2_K");
  EXPECT_EQ(type_of(recipe, "blk.2.ffn_up_exps.weight"), "Q8_0");
  EXPECT_EQ(type_of(recipe, "blk.4.ffn_up_exps.weight"), "Q3_K");
  EXPECT_EQ(type_of(recipe, "token_embd.weight"), "Q8_0");
}

TEST(Recipe, PartsOfTheDepthCoverEveryLayerOnce) {
  for (const int64_t n : {1, 3, 7, 8, 43, 61}) {
    const LayerRange parts[] = {{0, 125, true}, {125, 500, true}, {500, 875, true}, {875, 1000, true}};
    for (int64_t i = 0; i < n; ++i) {
      int found = 0;
      for (const LayerRange& part : parts) found += part.contains(i, n) ? 1 : 0;
      EXPECT_EQ(found, 1) << i << " of " << n;
    }
    EXPECT_FALSE(parts[0].contains(-1, n));
  }
}

TEST(Recipe, TheKeepListStandsAboveRulesUnlessARuleOverridesIt) {
  EXPECT_EQ(type_of(rules(R"({"type": "Q4_K"})"), "blk.0.ffn_gate_inp.weight"), "BF16");
  EXPECT_EQ(type_of(rules(R"({"type": "Q4_K"})"), "blk.0.attn_norm.weight"), "F32");
  EXPECT_EQ(type_of(rules(R"({"type": "mix:F32"})"), "blk.0.ffn_gate_inp.weight"), "F32");
  const Recipe recipe = rules(R"({"type": "Q4_K"}, {"role": ["router", "norm"], "type": "Q8_0", "override_keep": true})");
  EXPECT_EQ(type_of(recipe, "blk.0.ffn_gate_inp.weight"), "Q8_0");
  EXPECT_EQ(type_of(recipe, "blk.0.attn_norm.weight"), "F32");
}

TEST(Recipe, WidthsThatBlocksDoNotDivideFallBackAsTheRuleSays) {
  EXPECT_EQ(type_of(rules(R"({"type": "Q4_K"})"), "blk.0.attn_k_b.weight"), "Q5_0");
  EXPECT_EQ(type_of(rules(R"({"type": "Q4_K", "fallback": ["Q6_K", "Q8_0"]})"), "blk.0.attn_k_b.weight"), "Q8_0");
}

TEST(Recipe, StoredTypesAndKindsOfModelsAreConditions) {
  const Recipe recipe = rules(R"({"model": "dense", "type": "Q2_K"}, {"source": ["MXFP4", "F16"], "type": "Q3_K"},
                                 {"source": "BF16", "role": "output", "type": "source"}, {"model": "moe", "type": "Q4_K"})");
  EXPECT_EQ(type_of(recipe, "output.weight"), "BF16");
  EXPECT_EQ(type_of(recipe, "token_embd.weight"), "Q4_K");
}

TEST(Recipe, SaysWhichTensorHasNoRule) {
  EXPECT_EQ(kind_error(rules(R"({"role": "attention", "type": "Q4_K"})"), ErrorKind::kUsage),
            "tensor 'token_embd.weight': recipe r: no rule matches; a last rule without conditions decides the rest");
}

TEST(Recipe, ARuleMayRequireAnImportanceMatrix) {
  const Recipe recipe = rules(R"({"role": "routed-expert", "type": "IQ2_XXS", "importance": "required"}, {"type": "Q8_0"})");
  EXPECT_EQ(type_of(recipe, "blk.0.ffn_up_exps.weight", true), "IQ2_XXS");
  EXPECT_EQ(kind_error(recipe, ErrorKind::kUsage),
            "tensor 'blk.0.ffn_gate_exps.weight': recipe r: rule 1 (IQ2_XXS) requires an importance matrix; add --imatrix");
}

TEST(Recipe, LosslessAsksTheSourceAndNamesWhatIsImpossible) {
  const Recipe recipe = rules(R"({"type": "lossless"})");
  EXPECT_EQ(type_of(recipe, "token_embd.weight"), "BF16");
  const auto none = [](size_t i) { return i == 1 ? Exactness{std::nullopt, "too fine"} : Exactness{DType::F16, ""}; };
  EXPECT_EQ(kind_error(recipe, ErrorKind::kUnsupported, none),
            "lossless is impossible: 1 tensors have no exact GGUF type (too fine): 'output.weight'; use --type BF16");
}

TEST(Recipe, SurvivesBeingWrittenAndRead) {
  for (const Recipe& recipe : shipped_recipes()) {
    EXPECT_EQ(recipe_from_json(recipe_to_json(recipe)), recipe) << recipe.name;
    EXPECT_EQ(recipe_from_json(canonical_json(recipe)), recipe) << recipe.name;
    EXPECT_EQ(canonical_json(recipe).find('\n'), std::string::npos);
  }
  const Recipe full = recipe_from_json(
      R"({"schema": "quern.recipe/1", "name": "a.b-c_1", "notes": "n", "effort": "best", "rules": [{"name": "x", "layers": [3, [0, -2],
          "12.5%-25%"], "role": ["indexer", "mtp"], "part": ["q_a", "up"], "source": ["F16", "MXFP4"], "model": "dense", "type": "mix:Q4_K_M",
          "fallback": ["Q8_0", "F16"], "importance": "required", "override_keep": true, "note": "why"}]})");
  EXPECT_EQ(recipe_from_json(recipe_to_json(full)), full);
  EXPECT_EQ(recipe_id(recipe_from_json(canonical_json(full))), recipe_id(full));
  EXPECT_NE(recipe_id(full), recipe_id(rules(R"({"type": "Q8_0"})")));
}

TEST(Recipe, RefusesWhatItDoesNotUnderstandNamingTheRule) {
  EXPECT_EQ(rule_error(R"({"type": "Q8_0"}, {"type": "Q4_K_M"})"), "rule 2: unknown type 'Q4_K_M'; did you mean 'Q4_K'?");
  EXPECT_EQ(rule_error(R"({"type": "mix:Q4_K_X"})"), "rule 1: unknown type 'mix:Q4_K_X'; did you mean 'mix:Q4_K_M'?");
  EXPECT_EQ(rule_error(R"({"type": "I32"})").substr(0, 26), "rule 1: unknown type 'I32'");
  EXPECT_EQ(rule_error(R"({"typ": "Q8_0"})"), "rule 1: unknown key 'typ' in the rule; did you mean 'type'?");
  EXPECT_EQ(rule_error(R"({"role": "routed-experts", "type": "Q8_0"})"),
            "rule 1: unknown role 'routed-experts'; did you mean 'routed-expert'?");
  EXPECT_EQ(rule_error(R"({"role": "output"})"), "rule 1: 'type' is missing");
  EXPECT_EQ(rule_error(R"({"name": "a(", "type": "Q8_0"})"),
            "rule 1: 'a(' is not a regular expression: missing closing parenthesis at byte 2");
  EXPECT_EQ(rule_error(R"({"layers": [], "type": "Q8_0"})"), "rule 1: 'layers' must be a list of 1 to 1024 entries");
  EXPECT_EQ(rule_error(R"({"layers": [[5, 3]], "type": "Q8_0"})"), "rule 1: 'layers' has the empty range [5,3]");
  EXPECT_EQ(rule_error(R"({"layers": ["50%-120%"], "type": "Q8_0"})"),
            "rule 1: 'layers' has '50%-120%', expected parts of the depth such as '75%-100%'");
  EXPECT_EQ(rule_error(R"({"layers": [1.5], "type": "Q8_0"})"), "rule 1: 'layers' has 1.5, expected a layer number");
  EXPECT_EQ(rule_error(R"({"type": "Q8_0", "type": "Q4_K"})"), "key 'type' occurs twice");
  EXPECT_EQ(rule_error(""), "'rules' must be a list of at least one rule");
  EXPECT_EQ(error_of(R"({"schema": "quern.recipe/2", "name": "r", "rules": []})"), "schema is 'quern.recipe/2', expected 'quern.recipe/1'");
  EXPECT_NE(error_of(R"({"schema": "quern.recipe/1", "name": "../r", "rules": [{"type": "F16"}]})").find("file names"), std::string::npos);
  EXPECT_NE(error_of("{\"schema\": " + std::string(100, '[')).size(), 0u);
  EXPECT_EQ(error_of(std::string((size_t{1} << 20) + 1, ' ')), "a recipe of 1048577 bytes is larger than 1 MiB");
}

TEST(Recipe, EveryPrefixOfARecipeIsRefused) {
  const std::string good = canonical_json(shipped_recipes().front());
  for (size_t n = 0; n < good.size(); ++n) EXPECT_THROW(recipe_from_json(std::string(good.data(), n)), Error) << n;
}

TEST(Recipe, APatternThatSearchesForeverIsAnError) {
  const Recipe recipe = rules(R"({"name": "^([a-z_.0-9]+)+\\1\\1$", "type": "Q8_0"}, {"type": "Q4_K"})");
  EXPECT_NE(kind_error(recipe, ErrorKind::kUsage).find("takes too long"), std::string::npos);
}

TEST(Recipe, SuggestsTheNearestName) {
  EXPECT_EQ(load_recipe("Dynamic-2BIT").name, "dynamic-2bit");
  EXPECT_EQ(load_recipe("q4_k_m"), mix_recipe(*find_mix("Q4_K_M")));
  try {
    load_recipe("dynamic-2bits");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::StartsWith("no recipe or file is named 'dynamic-2bits'; did you mean 'dynamic-2bit'? Known: dyn"));
  }
}

// The schema is for editors and other programs: it must know the words that the reader knows.
TEST(Recipe, TheSchemaKnowsTheWordsOfTheReader) {
  const json schema = json::parse(read_text_file(QUERN_RECIPE_SCHEMA, 1 << 20));
  for (const auto& role : schema.at("$defs").at("role").at("enum")) EXPECT_TRUE(find_role(role.get<std::string>())) << role;
  for (int i = 0; i <= static_cast<int>(Role::kOther); ++i) {
    const auto& roles = schema.at("$defs").at("role").at("enum");
    EXPECT_EQ(std::count(roles.begin(), roles.end(), role_name(static_cast<Role>(i))), 1);
  }
  const json& types = schema.at("$defs").at("type").at("enum");
  for (const auto& type : types) EXPECT_NO_THROW(recipe_type_from_string(type.get<std::string>())) << type;
  for (int id = 0; id < 64; ++id) {
    const std::optional<DType> type = find_dtype_by_gguf_id(id);
    if (!type) continue;
    bool known = true;
    try {
      recipe_type_from_string(name_of(*type));
    } catch (const Error&) {
      known = false;
    }
    EXPECT_EQ(std::count(types.begin(), types.end(), name_of(*type)), known ? 1 : 0) << name_of(*type);
  }
  for (const auto& [key, value] : schema.at("$defs").at("rule").at("properties").items()) {
    EXPECT_EQ(rule_error("{\"" + key + "\": 7}").find("unknown key"), std::string::npos) << key;
  }
  EXPECT_NE(rule_error(R"({"else": 7})").find("unknown key"), std::string::npos);
}

TEST(Recipe, TheProgramShipsWhatTheFolderHolds) {
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(kRecipes)) {
    if (entry.path().extension() != ".json") continue;
    const Recipe recipe = recipe_from_json(read_text_file(entry.path(), 1 << 20));
    EXPECT_EQ(entry.path().stem(), recipe.name);
    EXPECT_EQ(load_recipe(recipe.name), recipe);
    ++files;
  }
  EXPECT_EQ(files, shipped_recipes().size());
  EXPECT_GE(files, 4u);
}

void expect_same_types(const ModelSource& source, std::span<const TypeChoice> choices, const std::string& name, bool have_imatrix) {
  std::vector<DType> types;
  for (const TypeChoice& choice : choices) types.push_back(choice.type);
  const Recipe recipe = recipe_of_types(name, source.metadata(), source.tensors(), types);
  const Recipe read = recipe_from_json(recipe_to_json(recipe));
  const auto again = choose_types(read, source.metadata(), source.tensors(), have_imatrix);
  for (size_t k = 0; k < types.size(); ++k) {
    ASSERT_EQ(name_of(again[k].type), name_of(types[k])) << name << ' ' << source.tensors()[k].name;
  }
  for (const RecipeRule& rule : recipe.rules) EXPECT_EQ(rule.name, "") << name << ": a rule by name where roles suffice";
}

// Every mix, with and without an importance matrix, written as rules.
void expect_every_mix_is_expressible(const fs::path& folder) {
  const std::unique_ptr<ModelSource> source = open_model(folder);
  for (const Mix& mix : all_mixes()) {
    for (const bool have_imatrix : {false, true}) {
      const auto choices = choose_types(mix_recipe(mix), source->metadata(), source->tensors(), have_imatrix);
      if (!is_lossless(mix)) {
        const auto direct = choose_types(mix, source->metadata(), source->tensors(), have_imatrix);
        for (size_t k = 0; k < direct.size(); ++k) EXPECT_EQ(choices[k].type, direct[k].type);
      }
      expect_same_types(*source, choices, std::string(mix.name), have_imatrix);
    }
  }
  for (const Recipe& recipe : shipped_recipes()) {
    expect_same_types(*source, choose_types(recipe, source->metadata(), source->tensors(), true), recipe.name, true);
  }
}

TEST(Recipe, EveryMixOfEveryMiniatureIsExpressibleInRules) {
  for (const auto& entry : fs::directory_iterator(fs::path(QUERN_TEST_DATA) / "models")) {
    if (!entry.is_directory()) continue;
    SCOPED_TRACE(entry.path().filename().string());
    expect_every_mix_is_expressible(entry.path());
  }
}

TEST(TrainedModelRecipe, EveryMixIsExpressibleInRules) {
  for (const char* name : {"tiny-llama3", "tiny-mixtral", "tiny-qwen2", "tiny-qwen3moe", "tiny-v3", "tiny-v4-flash"}) {
    const fs::path folder = fs::path(QUERN_SHARED) / "models" / name;
    if (!fs::exists(folder)) GTEST_SKIP() << folder << " is not here";
    SCOPED_TRACE(name);
    expect_every_mix_is_expressible(folder);
  }
}

}  // namespace
}  // namespace quern
