#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf/metadata.h"

namespace quern {

// Values of a model card as hubs take them. A hub refuses the upload of a whole folder for one of them that it does not know, so they are
// looked at before anything is built.

// Why a text is no id of a model on a hub, "name" or "org/name"; empty when it is one.
std::string why_not_hub_id(std::string_view id);
// Why a hub knows no such licence, with the nearest that it does know; empty for one that it knows.
std::string why_not_license(std::string_view id);
// Why a text names no branch, tag or commit; empty when it may name one.
std::string why_not_revision(std::string_view revision);
// A code of ISO 639, "code" or "multilingual".
bool is_language_code(std::string_view language);
// A licence's own name as hubs want it: small letters, digits, '-' and '.'.
std::string license_name_of(std::string_view name);

// The ids in general.license, which has those of a list with commas between them.
std::vector<std::string> licenses_of(const Metadata& metadata);
// The languages that a card can name.
std::vector<std::string> languages_of(const Metadata& metadata);
// What a hub will not like about what the model itself says, one line each.
std::vector<std::string> card_warnings(const Metadata& metadata);

}  // namespace quern
