#include "recipes/recipe.h"

#include "tests/fuzz/fuzz.h"

// What is accepted can be written, and reads the same again.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::optional<quern::Recipe> recipe;
  quern::test::accept_errors([&] { recipe = quern::recipe_from_json(quern::test::input_text(data, size)); });
  if (!recipe) return 0;
  QUERN_CHECK(quern::recipe_from_json(quern::recipe_to_json(*recipe)) == *recipe);
  QUERN_CHECK(quern::recipe_from_json(quern::canonical_json(*recipe)) == *recipe);
  return 0;
}
