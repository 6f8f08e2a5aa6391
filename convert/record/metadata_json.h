#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>

#include "formats/gguf/metadata.h"

namespace quern {

// Metadata as JSON and back, value for value and type for type: [{"key": K, "type": "u32", "value": V}, ...], arrays with
// type "u32[]". Strings that are not UTF-8 become {"hex": "..."}, floats that are not finite the strings "inf", "-inf", "nan".
nlohmann::json metadata_to_json(const Metadata& metadata);
Metadata metadata_from_json(const nlohmann::json& json);  // throws kFormat

// Bytes as metadata has them, text or {"hex": "..."}.
nlohmann::json string_to_json(const std::string& text);
std::string string_from_json(const nlohmann::json& value);

}  // namespace quern
