#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace quern {

// A JSON text as a tree, for files of ours that anybody may have edited: at most max_depth nested objects and arrays, no key twice in
// one object (readers disagree on which counts), UTF-8, nothing after the value. Throws kFormat naming the byte.
nlohmann::json parse_json_tree(std::string_view text, int max_depth);

}  // namespace quern
