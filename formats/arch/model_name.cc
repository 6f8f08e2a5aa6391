#include "formats/arch/model_name.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <vector>

// A name is cut at its dashes, and each part gets a kind by its own looks: a version, a label of a type, a size, a word that says what it
// was tuned for. The first part is never a size or a tuning, since it begins the base name. What looks like a size but is far from the
// number of weights there are is a context length, and counts as tuning. The base name is then the leading run of plain words and versions,
// and plain words that come later are tunings too. In the source the looks are regular expressions, here each is a small function.

namespace quern {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_alpha(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; }
char lower(char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }

std::string lower_case(std::string_view s) {
  std::string result(s);
  std::transform(result.begin(), result.end(), result.begin(), lower);
  return result;
}

// Digits at the start of `s`, which loses them.
size_t skip_digits(std::string_view& s) {
  size_t n = 0;
  while (n < s.size() && is_digit(s[n])) ++n;
  s.remove_prefix(n);
  return n;
}

// 3, v2, V3.1, iter2
bool is_version(std::string_view part) {
  std::string text = lower_case(part);
  std::string_view s = text;
  if (s.starts_with("iter")) {
    s.remove_prefix(4);
  } else if (s.starts_with("v")) {
    s.remove_prefix(1);
  }
  if (skip_digits(s) == 0) return false;
  while (s.starts_with('.')) {
    s.remove_prefix(1);
    if (skip_digits(s) == 0) return false;
  }
  return s.empty();
}

// 7B, 1.5b, 8x22B, A3B, 7b1
bool is_numeric_size(std::string_view s) {
  if (s.starts_with('A') || s.starts_with('a')) {
    s.remove_prefix(1);
  } else if (std::string_view rest = s; skip_digits(rest) > 0 && !rest.empty() && lower(rest.front()) == 'x') {
    s = rest.substr(1);
  }
  if (skip_digits(s) == 0) return false;
  if (!s.empty() && (s.front() == '.' || s.front() == '_')) {
    s.remove_prefix(1);
    if (skip_digits(s) == 0) return false;
  }
  if (s.empty() || std::string_view("kmbt").find(lower(s.front())) == std::string_view::npos) return false;
  s.remove_prefix(1);
  return s.empty() || (s.size() == 1 && is_digit(s.front()));
}

bool is_one_of(std::string_view part, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), lower_case(part)) != words.end();
}

bool is_word_size(std::string_view part) { return is_one_of(part, {"small", "mini", "medium", "large", "xl", "xxl"}); }

// Q4_K_M, IQ2, BF16: should not be in the name of an original model.
bool is_type_label(std::string_view part) {
  const std::string text = lower_case(part);
  std::string_view s = text;
  if (s == "f16" || s == "fp16" || s == "bf16" || s == "bfp16" || s == "f32" || s == "fp32" || s == "bf32" || s == "bfp32") return true;
  if (s.starts_with('i')) s.remove_prefix(1);
  return s.size() >= 2 && s[0] == 'q' && is_digit(s[1]) && (s.size() == 2 || s[2] == '_');
}

// "7b1" -> "7.1b", "1_5b" -> "1.5B"
std::string normal_size(std::string_view part) {
  std::string s(part);
  std::replace(s.begin(), s.end(), '_', '.');
  if (is_digit(s.back())) s = s.substr(0, s.size() - 2) + "." + s.back() + s[s.size() - 2];
  if (s.size() > 1 && is_digit(s[s.size() - 2])) s.back() = static_cast<char>(std::toupper(static_cast<unsigned char>(s.back())));
  return s;
}

// Weights that a size such as "1.5B" stands for; empty for "8x7B" and "A3B".
std::optional<double> weights_of(const std::string& size) {
  char* end = nullptr;
  const double number = std::strtod(size.c_str(), &end);
  const size_t power = std::string_view("KMBT").find(size.back());
  if (end != size.c_str() + size.size() - 1 || power == std::string_view::npos) return std::nullopt;
  return number * std::pow(1000.0, static_cast<double>(power + 1));
}

enum class Kind { kNone, kVersion, kType, kNumericSize, kWordSize, kFinetune };

struct Part {
  std::string text;
  Kind kind = Kind::kNone;
  bool in_basename = false;
};

void annotate(Part& part, bool first, int64_t total_weights) {
  if (is_version(part.text)) {
    part.kind = Kind::kVersion;
  } else if (is_type_label(part.text)) {
    part.kind = Kind::kType;
  } else if (!first && is_numeric_size(part.text)) {
    part.text = normal_size(part.text);
    part.kind = Kind::kNumericSize;
    const auto weights = weights_of(part.text);
    const auto total = static_cast<double>(total_weights);
    if (total_weights > 0 && weights && std::abs(*weights - total) > 7 * total / 8) {  // a context length
      part.kind = Kind::kFinetune;
      part.text.back() = lower(part.text.back());
    }
  } else if (!first && is_word_size(part.text)) {
    part.kind = Kind::kWordSize;
  } else if (!first && is_one_of(part.text, {"chat", "instruct", "vision", "lora"})) {
    part.kind = Kind::kFinetune;
  }
}

// The base name is the leading run of words and versions, less the versions at its end when nothing follows it.
void mark_basename(std::vector<Part>& parts) {
  size_t n = 0;
  while (n < parts.size() && (parts[n].kind == Kind::kVersion || (parts[n].kind == Kind::kNone && is_alpha(parts[n].text.front())))) ++n;
  if (n == parts.size()) {
    while (n > 0 && parts[n - 1].kind == Kind::kVersion) --n;
  }
  for (size_t i = 0; i < n; ++i) parts[i].in_basename = true;
  for (size_t i = n; i < parts.size(); ++i) {
    if (parts[i].kind == Kind::kNone) parts[i].kind = Kind::kFinetune;
  }
}

template <typename Predicate>
std::string join(const std::vector<Part>& parts, Predicate predicate) {
  std::string result;
  for (const Part& part : parts) {
    if (predicate(part)) result += (result.empty() ? "" : "-") + part.text;
  }
  return result;
}

std::vector<Part> split(std::string_view name) {
  std::vector<Part> parts;
  while (!name.empty()) {
    const std::string_view part = name.substr(0, name.find('-'));
    name.remove_prefix(std::min(name.size(), part.size() + 1));
    if (!part.empty()) parts.push_back({std::string(part)});
  }
  return parts;
}

}  // namespace

ModelName parse_model_name(std::string_view id, int64_t total_weights) {
  ModelName name;
  name.full = id;
  if (id.find(' ') != std::string_view::npos) return name;
  if (const size_t slash = id.find('/'); slash != std::string_view::npos) {
    if (!id.starts_with('.')) name.organization = id.substr(0, slash);
    name.full = id.substr(slash + 1);
  }
  std::vector<Part> parts = split(name.full);
  for (size_t i = 0; i < parts.size(); ++i) annotate(parts[i], i == 0, total_weights);
  mark_basename(parts);

  const bool numeric = std::any_of(parts.begin(), parts.end(), [](const Part& p) { return p.kind == Kind::kNumericSize; });
  const auto kind_is = [](Kind kind) { return [kind](const Part& p) { return !p.in_basename && p.kind == kind; }; };
  name.size_label = join(parts, kind_is(numeric ? Kind::kNumericSize : Kind::kWordSize));
  name.finetune = join(parts, kind_is(Kind::kFinetune));
  name.version = join(parts, kind_is(Kind::kVersion));
  if (!name.size_label.empty() || !name.finetune.empty() || !name.version.empty()) {
    name.basename = join(parts, [](const Part& p) { return p.in_basename; });
  }
  return name;
}

std::string title_of(std::string_view name) {
  std::string title;
  std::string spaced(name);
  std::replace(spaced.begin(), spaced.end(), '-', ' ');
  std::string_view rest = spaced;
  while (!rest.empty()) {
    std::string word(rest.substr(0, rest.find(' ')));
    rest.remove_prefix(std::min(rest.size(), word.size() + 1));
    if (word.empty()) continue;
    const bool version = is_digit(word.front()) || (lower(word.front()) == 'v' && is_version(word));
    if (!version && word == lower_case(word)) word.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(word.front())));
    title += (title.empty() ? "" : " ") + word;
  }
  return title;
}

std::string rounded_count(int64_t n_weights) {
  struct Unit {
    double size;
    const char* suffix;
  };
  constexpr std::array kUnits = {Unit{1e12, "T"}, Unit{1e9, "B"}, Unit{1e6, "M"}, Unit{1e3, "K"}};
  const auto n = static_cast<double>(n_weights);
  const auto unit = std::find_if(kUnits.begin(), kUnits.end() - 1, [&](const Unit& u) { return n > u.size; });
  const double scaled = n / unit->size;
  const double whole = std::nearbyint(scaled);
  const int decimals = whole >= 10 ? 0 : whole >= 1 ? 1 : 2;
  char text[32];
  std::snprintf(text, sizeof text, "%.*f%s", decimals, scaled, unit->suffix);
  return text;
}

}  // namespace quern
