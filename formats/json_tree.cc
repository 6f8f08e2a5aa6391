#include "formats/json_tree.h"

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "formats/base/error.h"

namespace quern {

using nlohmann::json;

json parse_json_tree(std::string_view text, int max_depth) {
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto check = [&](int depth, json::parse_event_t event, json& value) {
    using Event = json::parse_event_t;
    if (depth > max_depth) throw Error(ErrorKind::kFormat, "nested deeper than " + std::to_string(max_depth) + " levels");
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(value.get<std::string>()).second) {
      throw Error(ErrorKind::kFormat, "the key '" + printable(value.get<std::string>()) + "' occurs twice in one object");
    }
    return true;
  };
  try {
    return json::parse(text, check);
  } catch (const json::parse_error& error) {
    throw Error(ErrorKind::kFormat, "not valid JSON").at(error.byte);
  } catch (const json::out_of_range&) {
    throw Error(ErrorKind::kFormat, "not valid JSON: a number is too large for a double");
  }
}

}  // namespace quern
