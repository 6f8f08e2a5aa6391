#include "formats/base/error.h"

#include <cstdio>

#include "formats/base/utf8.h"

namespace quern {
std::string printable(std::string_view text, size_t max_bytes) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    if (out.size() >= max_bytes) return out + "...";
    const auto byte = static_cast<unsigned char>(text[i]);
    const size_t length = utf8_sequence_length(text, i);
    if (length == 0 || byte < 0x20 || byte == 0x7F) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\x%02X", byte);
      out += escaped;
      ++i;
    } else {
      out.append(text.substr(i, length));
      i += length;
    }
  }
  return out;
}

Error::Error(ErrorKind kind, std::string message) : kind_(kind), message_(std::move(message)) { compose(); }

Error& Error::file(std::string_view path) {
  if (file_.empty()) file_ = path;
  compose();
  return *this;
}

Error& Error::at(uint64_t offset) {
  if (!offset_) offset_ = offset;
  compose();
  return *this;
}

Error& Error::tensor(std::string_view name) {
  if (tensor_.empty()) tensor_ = name;
  compose();
  return *this;
}

void Error::compose() {
  what_.clear();
  if (!file_.empty()) what_ += printable(file_, 4096) + ": ";
  if (offset_) what_ += "offset " + std::to_string(*offset_) + ": ";
  if (!tensor_.empty()) what_ += "tensor '" + printable(tensor_) + "': ";
  what_ += printable(message_, 4096);
}

const char* Error::what() const noexcept { return what_.c_str(); }

namespace detail {

void check_failed(const char* condition, const char* file, int line) {
  throw Error(ErrorKind::kInternal, std::string("internal check failed: ") + condition + " (" + file + ":" + std::to_string(line) + ")");
}

}  // namespace detail
}  // namespace quern
