#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace quern {
// clang-format off
using MetaVariant = std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool, std::string, uint64_t, int64_t, double,
                                 std::vector<uint8_t>, std::vector<int8_t>, std::vector<uint16_t>, std::vector<int16_t>,
                                 std::vector<uint32_t>, std::vector<int32_t>, std::vector<float>, std::vector<bool>,
                                 std::vector<std::string>, std::vector<uint64_t>, std::vector<int64_t>, std::vector<double>>;
// clang-format on
// A GGUF metadata value. Integer arrays keep their element type because loaders check it. What copies, moves and destroys 24 alternatives
// stands in metadata.cc: in this header it would be up to half of the compile time of a file that holds a value.
class MetaValue : public MetaVariant {
 public:
  using MetaVariant::MetaVariant;
  MetaValue(const MetaValue& other);
  MetaValue(MetaValue&& other) noexcept;
  MetaValue& operator=(const MetaValue& other);
  MetaValue& operator=(MetaValue&& other) noexcept;
  ~MetaValue();
};

// Ordered key-value list with unique keys: the metadata of a GGUF file, or what a checkpoint's would be.
class Metadata {
 public:
  using Entry = std::pair<std::string, MetaValue>;

  // Replaces the value in place if the key exists, appends otherwise.
  void set(std::string_view key, MetaValue value);
  bool erase(std::string_view key);
  const MetaValue* find(std::string_view key) const noexcept;
  const std::vector<Entry>& entries() const noexcept { return entries_; }

  // Typed access; any integer width converts. find_* is empty when the key is absent; get_* throws kFormat naming the key.
  // Both throw kFormat when the value has another kind or does not fit.
  std::optional<int64_t> find_int(std::string_view key) const;
  std::optional<double> find_float(std::string_view key) const;  // integers convert
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::string> find_string(std::string_view key) const;
  int64_t get_int(std::string_view key) const;
  double get_float(std::string_view key) const;
  std::string get_string(std::string_view key) const;
  std::optional<std::vector<int64_t>> find_int_array(std::string_view key) const;
  std::optional<std::vector<double>> find_float_array(std::string_view key) const;
  const std::vector<std::string>* find_string_array(std::string_view key) const;

 private:
  std::vector<Entry> entries_;
};

}  // namespace quern
