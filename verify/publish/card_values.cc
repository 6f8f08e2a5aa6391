#include "verify/publish/card_values.h"

#include <algorithm>
#include <array>

#include "formats/base/error.h"
#include "formats/base/nearest.h"

// The rules are those by which huggingface.co checks the front matter of a README.md when it is uploaded. Licences are a closed list there;
// whatever else a model has is "other", with a name and a link of its own.

namespace quern {
namespace {

constexpr auto kLicenses = std::to_array<std::string_view>({
    "apache-2.0",
    "mit",
    "openrail",
    "bigscience-openrail-m",
    "creativeml-openrail-m",
    "bigscience-bloom-rail-1.0",
    "bigcode-openrail-m",
    "afl-3.0",
    "artistic-2.0",
    "bsl-1.0",
    "bsd",
    "bsd-2-clause",
    "bsd-3-clause",
    "bsd-3-clause-clear",
    "c-uda",
    "cc",
    "cc0-1.0",
    "cc-by-2.0",
    "cc-by-2.5",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc-by-nc-2.0",
    "cc-by-nc-3.0",
    "cc-by-nc-4.0",
    "cc-by-nd-4.0",
    "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-4.0",
    "cdla-sharing-1.0",
    "cdla-permissive-1.0",
    "cdla-permissive-2.0",
    "wtfpl",
    "ecl-2.0",
    "epl-1.0",
    "epl-2.0",
    "etalab-2.0",
    "eupl-1.1",
    "eupl-1.2",
    "agpl-3.0",
    "gfdl",
    "gpl",
    "gpl-2.0",
    "gpl-3.0",
    "lgpl",
    "lgpl-2.1",
    "lgpl-3.0",
    "isc",
    "h-research",
    "intel-research",
    "lppl-1.3c",
    "ms-pl",
    "apple-ascl",
    "apple-amlr",
    "mpl-2.0",
    "odc-by",
    "odbl",
    "openmdw-1.0",
    "openrail++",
    "osl-3.0",
    "postgresql",
    "ofl-1.1",
    "ncsa",
    "unlicense",
    "zlib",
    "pddl",
    "lgpl-lr",
    "deepfloyd-if-license",
    "fair-noncommercial-research-license",
    "llama2",
    "llama3",
    "llama3.1",
    "llama3.2",
    "llama3.3",
    "llama4",
    "grok2-community",
    "gemma",
    "unknown",
    "other",
});

constexpr size_t kLongestId = 96;

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_id_character(char c) { return is_letter(c) || is_digit(c) || c == '-' || c == '_' || c == '.'; }
bool is_end_mark(char c) { return c == '-' || c == '.'; }

bool is_id_part(std::string_view part) {
  return !part.empty() && std::ranges::all_of(part, is_id_character) && !is_end_mark(part.front()) && !is_end_mark(part.back());
}

std::string string_of(const Metadata& metadata, std::string_view key) {
  const MetaValue* value = metadata.find(key);
  const auto* text = value == nullptr ? nullptr : std::get_if<std::string>(value);
  return text == nullptr ? "" : *text;
}

std::vector<std::string> all_languages(const Metadata& metadata) {
  const MetaValue* value = metadata.find("general.languages");
  const auto* list = value == nullptr ? nullptr : std::get_if<std::vector<std::string>>(value);
  return list == nullptr ? std::vector<std::string>() : *list;
}

}  // namespace

std::string why_not_hub_id(std::string_view id) {
  const std::string shown = "'" + printable(id) + "'";
  if (const size_t host = id.find("://"); host != std::string_view::npos) {
    const size_t path = id.find('/', host + 3);
    const std::string_view rest = path == std::string_view::npos ? "" : id.substr(path + 1);
    return shown + " is an address and no hub id" + (why_not_hub_id(rest).empty() ? "; the id is '" + std::string(rest) + "'" : "");
  }
  const size_t slash = id.find('/');
  const bool one = slash == std::string_view::npos;
  const bool parts = one ? is_id_part(id) : is_id_part(id.substr(0, slash)) && is_id_part(id.substr(slash + 1));
  const bool forbidden = id.find("--") != std::string_view::npos || id.find("..") != std::string_view::npos || id.ends_with(".git");
  if (parts && !forbidden && id.size() <= kLongestId) return "";
  return shown + " is no hub id, which is as 'org/name', of letters, digits, '-', '_' and '.', at most " + std::to_string(kLongestId) +
         " characters";
}

std::string why_not_license(std::string_view id) {
  if (std::ranges::find(kLicenses, id) != kLicenses.end()) return "";
  const std::string hint = did_you_mean(id, kLicenses);
  return "'" + printable(id) + "' is no licence that the hub knows" +
         (hint.empty() ? "; 'other' stands for all that are not in its list" : hint);
}

std::string why_not_revision(std::string_view revision) {
  const auto is_plain = [](char c) { return is_id_character(c) || c == '/' || c == '+'; };
  const bool good = !revision.empty() && std::ranges::all_of(revision, is_plain) && revision.front() != '-' &&
                    revision.find("..") == std::string_view::npos;
  return good ? "" : "'" + printable(revision) + "' is no commit, branch or tag";
}

bool is_language_code(std::string_view language) {
  if (language == "code" || language == "multilingual") return true;
  return (language.size() == 2 || language.size() == 3) && std::ranges::all_of(language, [](char c) { return c >= 'a' && c <= 'z'; });
}

std::string license_name_of(std::string_view name) {
  std::string out;
  for (const char c : name) {
    const char small = ascii_lower(c);
    const bool plain = (small >= 'a' && small <= 'z') || is_digit(small) || small == '.';
    if (plain || (!out.empty() && out.back() != '-')) out += plain ? small : '-';
  }
  while (out.ends_with('-')) out.pop_back();
  return out;
}

std::vector<std::string> licenses_of(const Metadata& metadata) {
  std::vector<std::string> ids;
  const std::string text = string_of(metadata, "general.license");
  for (size_t from = 0; from < text.size();) {
    const size_t comma = std::min(text.find(',', from), text.size());
    if (comma > from) ids.push_back(text.substr(from, comma - from));
    from = comma + 1;
  }
  return ids;
}

std::vector<std::string> languages_of(const Metadata& metadata) {
  std::vector<std::string> languages = all_languages(metadata);
  std::erase_if(languages, [](const std::string& language) { return !is_language_code(language); });
  return languages;
}

std::vector<std::string> card_warnings(const Metadata& metadata) {
  std::vector<std::string> warnings;
  for (const std::string& id : licenses_of(metadata)) {
    if (const std::string why = why_not_license(id); !why.empty())
      warnings.push_back("the model's licence " + why + "; --license sets another");
  }
  std::string left_out;
  for (const std::string& language : all_languages(metadata)) {
    if (!is_language_code(language)) left_out += (left_out.empty() ? "'" : ", '") + printable(language, 20) + "'";
  }
  if (!left_out.empty()) warnings.push_back("the card leaves out the languages " + printable(left_out) + ", which are no codes of ISO 639");
  return warnings;
}

}  // namespace quern
