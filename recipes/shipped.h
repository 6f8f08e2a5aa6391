#pragma once

#include <span>
#include <string_view>

namespace quern {

// The texts of recipes/*.json, by name, compiled into the program.
std::span<const std::string_view> shipped_recipe_texts();

}  // namespace quern
