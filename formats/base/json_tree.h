#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace quern {

// A JSON text as a tree, for files of ours that anybody may have edited: at most max_depth nested objects and arrays, no key twice in
// one object (readers disagree on which counts), UTF-8, nothing after the value. Throws kFormat naming the byte.
nlohmann::json parse_json_tree(std::string_view text, int max_depth);

// The same for files that Python programs write and read. Of a key that occurs twice in one object the last value counts, and the key is
// added to `repeated`. NaN, Infinity and -Infinity, which JSON does not have, become the texts "NaN", "Infinity" and "-Infinity".
nlohmann::json parse_python_json(std::string_view text, int max_depth, std::vector<std::string>& repeated);

// A whole number of the range of T: int64_t, uint64_t or uint32_t. The conversions of the JSON library cut fractions off, wrap what is out
// of range, and are undefined for large doubles. Throws kFormat.
template <typename T>
T integer_from(const nlohmann::json& value);
template <typename T>
std::vector<T> integers_from(const nlohmann::json& values);

}  // namespace quern
