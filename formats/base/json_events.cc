#include "formats/base/json_events.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "formats/base/error.h"

// The library's own events pass through an adapter that counts the depth and hands them on, and no tree is ever made. What the library is
// lenient about is refused before it begins: it would take a zero byte for the end of the text and skip a byte order mark.

namespace quern {
namespace {

using nlohmann::json;

class Adapter final : public nlohmann::json_sax<json> {
 public:
  Adapter(JsonHandler& handler, int max_depth) : handler_(handler), max_depth_(max_depth) {}

  bool null() override { return other("null"); }
  bool boolean(bool value) override { return other(value ? "true" : "false"); }
  bool number_integer(number_integer_t) override { return other("a negative number"); }
  bool number_unsigned(number_unsigned_t value) override {
    handler_.natural(value);
    return true;
  }
  bool number_float(number_float_t, const string_t&) override { return other("a number that is no 64-bit integer"); }
  bool string(string_t& value) override {
    handler_.string(value);
    return true;
  }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override {
    enter();
    handler_.begin_object();
    return true;
  }
  bool key(string_t& name) override {
    handler_.key(name);
    return true;
  }
  bool end_object() override {
    --depth_;
    handler_.end_object();
    return true;
  }
  bool start_array(size_t) override {
    enter();
    handler_.begin_array();
    return true;
  }
  bool end_array() override {
    --depth_;
    handler_.end_array();
    return true;
  }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    throw Error(ErrorKind::kFormat, "not valid JSON at byte " + std::to_string(position));
  }

 private:
  bool other(const char* what) {
    handler_.other(what);
    return true;
  }

  void enter() {
    if (++depth_ > max_depth_) throw Error(ErrorKind::kFormat, "JSON is nested deeper than " + std::to_string(max_depth_) + " levels");
  }

  JsonHandler& handler_;
  int max_depth_;
  int depth_ = 0;
};

}  // namespace

void JsonHandler::refuse(const char* found) { throw Error(ErrorKind::kFormat, std::string("unexpected ") + found + " in the JSON"); }

void parse_json(std::span<const std::byte> text, int max_depth, JsonHandler& handler) {
  const auto* begin = reinterpret_cast<const char*>(text.data());
  const char* end = begin + text.size();
  // The parser takes a zero byte for the end of the input and skips a byte order mark.
  if (const char* zero = std::find(begin, end, '\0'); zero != end) {
    throw Error(ErrorKind::kFormat, "not valid JSON at byte " + std::to_string(zero - begin + 1));
  }
  if (!text.empty() && *begin == '\xEF') throw Error(ErrorKind::kFormat, "not valid JSON at byte 1");
  Adapter adapter(handler, max_depth);
  json::sax_parse(begin, end, &adapter);
}

}  // namespace quern
