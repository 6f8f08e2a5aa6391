#include <algorithm>
#include <cstring>
#include <filesystem>

#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/base/nearest.h"
#include "formats/gguf/gguf.h"
#include "recipes/recipe.h"
#include "recipes/shipped.h"

namespace quern {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 20;

std::vector<Recipe> read_shipped() {
  std::vector<Recipe> recipes;
  for (const std::string_view text : shipped_recipe_texts()) recipes.push_back(recipe_from_json(text));
  return recipes;
}

bool is_gguf(const InputFile& file) {
  std::array<std::byte, 4> magic{};
  if (file.size_bytes() < magic.size()) return false;
  file.read_at(0, magic);
  return std::memcmp(magic.data(), "GGUF", magic.size()) == 0;
}

Recipe recipe_of_file(const std::filesystem::path& path) {
  try {
    const InputFile file(path);
    if (is_gguf(file)) return embedded_recipe(gguf::read_header(file).metadata);
    return recipe_from_json(read_text_file(path, kMaxFileBytes));
  } catch (Error& error) {
    error.file(path.string());
    throw;
  }
}

[[noreturn]] void unknown_recipe(const std::string& name) {
  std::vector<std::string_view> names;
  for (const Recipe& recipe : shipped_recipes()) names.push_back(recipe.name);
  for (const Mix& mix : all_mixes()) names.push_back(mix.name);
  throw Error(ErrorKind::kUsage, "no recipe or file is named '" + printable(name) + "'" + known_names(name, names));
}

}  // namespace

Recipe embedded_recipe(const Metadata& metadata) {
  const std::optional<std::string> name = metadata.find_string("quern.recipe");
  const std::optional<std::string> text = metadata.find_string("quern.recipe.json");
  if (text) {
    Recipe recipe = recipe_from_json(*text);
    const std::string expected = metadata.find_string("quern.recipe.sha256").value_or("");
    if (recipe_id(recipe) != expected) throw Error(ErrorKind::kFormat, "quern.recipe.json does not have the hash quern.recipe.sha256");
    return recipe;
  }
  const Mix* mix = name ? find_mix(*name) : nullptr;
  if (mix == nullptr) throw Error(ErrorKind::kUsage, "the file does not say by which recipe it was built (no key quern.recipe)");
  return mix_recipe(*mix);
}

std::span<const Recipe> shipped_recipes() {
  static const std::vector<Recipe> recipes = read_shipped();
  return recipes;
}

Recipe load_recipe(const std::string& file_or_name) {
  for (const Recipe& recipe : shipped_recipes()) {
    if (same_name(recipe.name, file_or_name)) return recipe;
  }
  if (const Mix* mix = find_mix(file_or_name)) return mix_recipe(*mix);
  if (std::error_code ignored; std::filesystem::exists(file_or_name, ignored)) return recipe_of_file(file_or_name);
  unknown_recipe(file_or_name);
}

}  // namespace quern
