#include "convert/record/metadata_edit.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>

#include "convert/record/metadata_json.h"
#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/gguf/gguf_edit.h"

namespace quern {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxTemplateBytes = 4 << 20;
constexpr const char* kTemplateKey = "tokenizer.chat_template";

// Keys that say how the file is laid out: another value makes it unreadable.
void check_key(const std::string& key) {
  if (key.starts_with("split.") || key == "general.alignment" || key == gguf::kPaddingKey) {
    throw Error(ErrorKind::kUsage, "'" + printable(key) + "' describes the layout of the file and cannot be edited");
  }
}

// "u32", "str[]": of the value a key has, or what the text looks like.
std::string type_for(const Metadata& metadata, const std::string& key, const std::string& text) {
  if (metadata.find(key) != nullptr) {
    Metadata one;
    one.set(key, *metadata.find(key));
    return metadata_to_json(one).front().at("type");
  }
  const json value = json::parse(text, nullptr, false);
  if (value.is_boolean()) return "bool";
  if (value.is_number_unsigned()) return value.get<uint64_t>() <= UINT32_MAX ? "u32" : "u64";
  if (value.is_number_integer()) return "i32";
  if (value.is_number_float()) return "f32";
  return "str";
}

constexpr std::array kTypes = {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "str", "u64", "i64", "f64"};

// Takes ":u32" off the end of a key.
std::optional<std::string> take_type(std::string& key) {
  const size_t colon = key.rfind(':');
  if (colon == std::string::npos) return std::nullopt;
  const std::string type = key.substr(colon + 1);
  const std::string element = type.ends_with("[]") ? type.substr(0, type.size() - 2) : type;
  if (std::ranges::find(kTypes, element) == kTypes.end()) return std::nullopt;
  key.resize(colon);
  return type;
}

bool fits(const json& value, const std::string& type) {
  if (type.ends_with("[]")) {
    const std::string element = type.substr(0, type.size() - 2);
    return value.is_array() && std::ranges::all_of(value, [&](const json& one) { return fits(one, element); });
  }
  if (type == "str") return value.is_string();
  if (type == "bool") return value.is_boolean();
  if (type == "f32" || type == "f64") return value.is_number();
  if (!value.is_number_integer()) return false;
  const int bits = std::stoi(type.substr(1));
  if (type.starts_with("u")) return value.is_number_unsigned() && (bits == 64 || value.get<uint64_t>() < uint64_t{1} << bits);
  if (value.is_number_unsigned()) return value.get<uint64_t>() < uint64_t{1} << (bits - 1);
  return bits == 64 || value.get<int64_t>() >= -(int64_t{1} << (bits - 1));
}

// "key=value" or "key:type=value"; strings as they are, everything else as JSON.
void set_from_text(Metadata& metadata, const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) throw Error(ErrorKind::kUsage, "--set: '" + printable(text) + "' is not KEY=VALUE");
  std::string key = text.substr(0, equals);
  const std::string value = text.substr(equals + 1);
  const std::optional<std::string> stated = take_type(key);
  check_key(key);
  const std::string type = stated ? *stated : type_for(metadata, key, value);
  const json parsed = type == "str" ? json(value) : json::parse(value, nullptr, false);
  if (!fits(parsed, type))
    throw Error(ErrorKind::kUsage, "--set: '" + printable(value) + "' is not a value of type " + type + " ('" + printable(key) + "')");
  const Metadata one = metadata_from_json(json::array({{{"key", key}, {"type", type}, {"value", parsed}}}));
  metadata.set(key, one.entries().front().second);
}

}  // namespace

Metadata edited_metadata(const Metadata& old, const MetadataEdits& edits, std::vector<std::string>& notes) {
  Metadata metadata = old;
  for (const std::string& key : edits.remove) {
    check_key(key);
    if (!metadata.erase(key)) notes.push_back("--remove: the file has no key '" + printable(key) + "'");
  }
  for (const std::string& text : edits.set) set_from_text(metadata, text);
  if (!edits.chat_template.empty()) metadata.set(kTemplateKey, read_text_file(edits.chat_template, kMaxTemplateBytes));
  return metadata;
}

}  // namespace quern
