#include "formats/gguf/metadata.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "formats/base/error.h"

// Metadata is a plain list that is searched from front to back: a model has some dozens of keys, and their order is kept because it is
// written again. Values keep the type that the file gave them; typed access widens them on the way out, integers of any width to int64_t
// and numbers of any kind to double. Where a value has another kind or does not fit, the error names the key and what was wanted; a bool is
// no integer.

namespace quern {
namespace {

MetaVariant copy_of(const MetaVariant& other) {
  return std::visit(
      [](const auto& value) {
        auto copy = value;
        return MetaVariant(std::move(copy));
      },
      other);
}

template <typename T>
inline constexpr bool kIsInteger = std::is_integral_v<T> && !std::is_same_v<T, bool>;

template <typename T>
struct ElementOf {
  using type = void;
};
template <typename T>
struct ElementOf<std::vector<T>> {
  using type = T;
};

[[noreturn]] void wrong_kind(std::string_view key, const char* wanted) {
  throw Error(ErrorKind::kFormat, "metadata key '" + std::string(key) + "' is not " + wanted);
}

template <typename T>
int64_t to_int64(std::string_view key, T value) {
  if (std::cmp_greater(value, std::numeric_limits<int64_t>::max())) {
    throw Error(ErrorKind::kFormat, "metadata key '" + std::string(key) + "': value does not fit 63 bits");
  }
  return static_cast<int64_t>(value);
}

template <typename T>
T required(std::string_view key, std::optional<T> value) {
  if (!value) throw Error(ErrorKind::kFormat, "metadata key '" + std::string(key) + "' is missing");
  return *std::move(value);
}

}  // namespace

// Copied by hand: when memory runs out while an alternative is copied, libstdc++ 12 destroys the variant, which has no value yet, as if
// it had one, and jumps to an address from beside a table. So the alternative is copied by itself and then moved in, which cannot fail.
MetaValue::MetaValue(const MetaValue& other) : MetaVariant(copy_of(other)) {}
MetaValue::MetaValue(MetaValue&&) noexcept = default;
MetaValue& MetaValue::operator=(const MetaValue& other) { return *this = MetaValue(other); }
MetaValue& MetaValue::operator=(MetaValue&&) noexcept = default;
MetaValue::~MetaValue() = default;

void Metadata::set(std::string_view key, MetaValue value) {
  for (Entry& entry : entries_) {
    if (entry.first == key) {
      entry.second = std::move(value);
      return;
    }
  }
  entries_.emplace_back(std::string(key), std::move(value));
}

bool Metadata::erase(std::string_view key) {
  return std::erase_if(entries_, [&](const Entry& entry) { return entry.first == key; }) != 0;
}

const MetaValue* Metadata::find(std::string_view key) const noexcept {
  const auto it = std::ranges::find(entries_, key, &Entry::first);
  return it == entries_.end() ? nullptr : &it->second;
}

std::optional<int64_t> Metadata::find_int(std::string_view key) const {
  const MetaValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  return std::visit(
      [&](const auto& v) -> std::optional<int64_t> {
        using T = std::decay_t<decltype(v)>;
        if constexpr (kIsInteger<T>) {
          return to_int64(key, v);
        } else {
          wrong_kind(key, "an integer");
        }
      },
      *value);
}

std::optional<double> Metadata::find_float(std::string_view key) const {
  const MetaValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  return std::visit(
      [&](const auto& v) -> std::optional<double> {
        using T = std::decay_t<decltype(v)>;
        if constexpr (kIsInteger<T> || std::is_floating_point_v<T>) {
          return static_cast<double>(v);
        } else {
          wrong_kind(key, "a number");
        }
      },
      *value);
}

std::optional<bool> Metadata::find_bool(std::string_view key) const {
  const MetaValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const bool* b = std::get_if<bool>(value)) return *b;
  wrong_kind(key, "a bool");
}

std::optional<std::string> Metadata::find_string(std::string_view key) const {
  const MetaValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* s = std::get_if<std::string>(value)) return *s;
  wrong_kind(key, "a string");
}

int64_t Metadata::get_int(std::string_view key) const { return required(key, find_int(key)); }
double Metadata::get_float(std::string_view key) const { return required(key, find_float(key)); }
std::string Metadata::get_string(std::string_view key) const { return required(key, find_string(key)); }

std::optional<std::vector<int64_t>> Metadata::find_int_array(std::string_view key) const {
  const MetaValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  return std::visit(
      [&](const auto& v) -> std::optional<std::vector<int64_t>> {
        using E = typename ElementOf<std::decay_t<decltype(v)>>::type;
        if constexpr (kIsInteger<E>) {
          std::vector<int64_t> out;
          for (const E x : v) out.push_back(to_int64(key, x));
          return out;
        } else {
          wrong_kind(key, "an array of integers");
        }
      },
      *value);
}

std::optional<std::vector<double>> Metadata::find_float_array(std::string_view key) const {
  const MetaValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  return std::visit(
      [&](const auto& v) -> std::optional<std::vector<double>> {
        using E = typename ElementOf<std::decay_t<decltype(v)>>::type;
        if constexpr (kIsInteger<E> || std::is_floating_point_v<E>) {
          return std::vector<double>(v.begin(), v.end());
        } else {
          wrong_kind(key, "an array of numbers");
        }
      },
      *value);
}

const std::vector<std::string>* Metadata::find_string_array(std::string_view key) const {
  const MetaValue* value = find(key);
  if (value == nullptr) return nullptr;
  if (const auto* v = std::get_if<std::vector<std::string>>(value)) return v;
  wrong_kind(key, "an array of strings");
}

}  // namespace quern
