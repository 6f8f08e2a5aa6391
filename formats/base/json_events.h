#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace quern {

// Receives a JSON text as events, so that a 20 MB header never becomes a tree. Every default refuses what it gets with kFormat:
// a handler overrides exactly what its format allows.
class JsonHandler {
 public:
  virtual ~JsonHandler() = default;

  virtual void begin_object() { refuse("an object"); }
  virtual void end_object() {}
  virtual void begin_array() { refuse("an array"); }
  virtual void end_array() {}
  virtual void key(std::string& /*name: may be moved from*/) {}
  virtual void string(std::string& /*value: may be moved from*/) { refuse("a string"); }
  virtual void natural(uint64_t /*value*/) { refuse("a number"); }
  // null, true, false, negative or fractional numbers, numbers beyond 64 bits; `what` says which.
  virtual void other(const char* what) { refuse(what); }

 protected:
  [[noreturn]] static void refuse(const char* found);
};

// Parses the whole of `text` strictly: UTF-8 without byte order mark, no comments, nothing but white space after the value, at
// most max_depth nested objects and arrays. Duplicate keys are the handler's to find. Throws kFormat naming the byte.
void parse_json(std::span<const std::byte> text, int max_depth, JsonHandler& handler);

}  // namespace quern
