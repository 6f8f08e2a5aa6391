#include "convert/plan/naming.h"

#include <optional>

namespace quern {
namespace {

std::string file_safe(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
    const bool begins_word = !safe.empty() && safe.back() != '-';
    if (plain && !(safe.empty() && c == '.')) {
      safe += c;
    } else if (begins_word) {
      safe += '-';
    }
  }
  while (!safe.empty() && safe.back() == '-') safe.pop_back();
  return safe;
}

}  // namespace

std::string output_stem(const Metadata& metadata, bool mtp, bool partial, std::string_view label) {
  std::string stem;
  const auto append = [&stem](const std::optional<std::string>& part) {
    const std::string safe = file_safe(part.value_or(""));
    if (!safe.empty()) stem += (stem.empty() ? "" : "-") + safe;
  };
  const auto basename = metadata.find_string("general.basename");
  append(basename ? basename : metadata.find_string("general.name"));
  if (stem.empty()) stem = "model";
  for (const char* key : {"general.size_label", "general.finetune", "general.version"}) append(metadata.find_string(key));
  if (partial) append("partial");
  append(std::string(label));
  return mtp ? "mtp-" + stem : stem;
}

}  // namespace quern
