#include "formats/base/json_tree.h"

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "formats/base/checked.h"

// The parser asks a callback about every event before it adds to the tree, and the callback keeps the set of keys of each open object. So
// depth and repeated keys are refused while the text is read; afterwards the tree could no longer tell that a key occurred twice.

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

template <typename T>
T integer_from(const json& value) {
  if (value.is_number_unsigned()) return checked_cast<T>(value.get<uint64_t>(), "a number");
  if (value.is_number_integer()) return checked_cast<T>(value.get<int64_t>(), "a number");
  throw Error(ErrorKind::kFormat, "'" + printable(value.dump(-1, ' ', false, json::error_handler_t::replace)) + "' is not a whole number");
}

template <typename T>
std::vector<T> integers_from(const json& values) {
  std::vector<T> integers;
  for (const json& value : values) integers.push_back(integer_from<T>(value));
  return integers;
}

template int64_t integer_from(const json&);
template uint64_t integer_from(const json&);
template uint32_t integer_from(const json&);
template std::vector<int64_t> integers_from(const json&);
template std::vector<uint64_t> integers_from(const json&);
template std::vector<uint32_t> integers_from(const json&);

}  // namespace quern
