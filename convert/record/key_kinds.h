#pragma once

#include <string_view>

namespace quern {

// Metadata keys by what they speak of.

// How a file was made and how it is laid out: nothing that the model says of itself.
bool is_of_the_build(std::string_view key);
// Names, licence, origin and tags of a model: whoever publishes a build may choose them, and no program computes with them.
bool is_of_the_publisher(std::string_view key);

}  // namespace quern
