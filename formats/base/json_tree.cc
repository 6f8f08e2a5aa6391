#include "formats/base/json_tree.h"

#include <nlohmann/json.hpp>
#include <string>
#include <unordered_set>
#include <vector>

#include "formats/base/checked.h"
#include "formats/base/utf8.h"

// The parser asks a callback about every event before it adds to the tree, and the callback keeps the set of keys of each open object. So
// depth and repeated keys are found while the text is read; afterwards the tree could no longer tell that a key occurred twice.
//
// Python writes numbers that are not finite as three words. Outside of strings no other word of JSON begins with their letters, so they
// are put in quotes before the text is parsed.

namespace quern {

using nlohmann::json;

namespace {

// What the parser objects to, in the words of whoever saved the file.
std::string cause_of(std::string_view text, const json::parse_error& error) {
  if (is_utf16(text)) return "not valid JSON: the file is UTF-16, save it as UTF-8";
  if (find_invalid_utf8(text)) return "not valid JSON: not UTF-8";
  return std::string_view(error.what()).find("surrogate") != std::string_view::npos ? "not valid JSON: half of a character (\\u escape)"
                                                                                    : "not valid JSON";
}

template <typename OnRepeated>
json parse_tree(std::string_view text, int max_depth, const OnRepeated& on_repeated) {
  std::vector<std::unordered_set<std::string>> keys;  // of the objects that are open
  const auto check = [&](int depth, json::parse_event_t event, json& value) {
    using Event = json::parse_event_t;
    if (depth > max_depth) throw Error(ErrorKind::kFormat, "nested deeper than " + std::to_string(max_depth) + " levels");
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(value.get<std::string>()).second) on_repeated(value.get<std::string>());
    return true;
  };
  try {
    return json::parse(text, check);
  } catch (const json::parse_error& error) {
    throw Error(ErrorKind::kFormat, cause_of(text, error)).at(error.byte);
  } catch (const json::out_of_range&) {
    throw Error(ErrorKind::kFormat, "not valid JSON: a number is too large for a double");
  }
}

// The position behind the string that begins at `at`; the end of the text when it does not end.
size_t end_of_string(std::string_view text, size_t at) {
  for (size_t i = at + 1; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      return i + 1;
    }
  }
  return text.size();
}

std::string quote_python_numbers(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    size_t length = text[i] == '"' ? end_of_string(text, i) - i : 1;
    bool is_number = false;
    for (const std::string_view word : {"NaN", "Infinity", "-Infinity"}) {
      if (!text.substr(i).starts_with(word)) continue;
      length = word.size();
      is_number = true;
    }
    if (is_number) out += '"';
    out.append(text.substr(i, length));
    if (is_number) out += '"';
    i += length;
  }
  return out;
}

}  // namespace

json parse_json_tree(std::string_view text, int max_depth) {
  return parse_tree(text, max_depth, [](const std::string& key) {
    throw Error(ErrorKind::kFormat, "the key '" + printable(key) + "' occurs twice in one object");
  });
}

json parse_python_json(std::string_view text, int max_depth, std::vector<std::string>& repeated) {
  return parse_tree(quote_python_numbers(text), max_depth, [&](const std::string& key) { repeated.push_back(key); });
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
