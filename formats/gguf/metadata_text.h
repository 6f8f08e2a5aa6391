#pragma once

#include <string>
#include <vector>

#include "formats/gguf/metadata.h"

namespace quern {

template <typename T>
inline constexpr bool kIsArray = false;
template <typename T>
inline constexpr bool kIsArray<std::vector<T>> = true;

// "str", "[i32]".
std::string type_name(const MetaValue& value);
// For one line: strings quoted and cut, of arrays the number and the first elements.
std::string value_text(const MetaValue& value);

}  // namespace quern
