#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "formats/base/error.h"
#include "formats/base/json_tree.h"
#include "verify/fit/sensitivity.h"

// The file is a cache of measurements that take long, so it is believed only where it could have been written by this very run: the key,
// the tensors in their order and the candidates of each must be those that would be measured now. Everything else is an error, which the
// caller answers by measuring again.

namespace quern {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr int kMaxDepth = 8;
constexpr const char* kSchema = "quern.sensitivities/1";

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorKind::kFormat, what); }

ordered_json names_of(std::span<const DType> types) {
  ordered_json names = ordered_json::array();
  for (const DType type : types) names.push_back(name_of(type));
  return names;
}

std::vector<DType> types_from(const json& names) {
  std::vector<DType> types;
  for (const json& name : names) {
    const std::optional<DType> type = find_dtype_by_name(name.get<std::string>());
    if (!type) refuse("unknown type '" + printable(name.get<std::string>()) + "'");
    types.push_back(*type);
  }
  return types;
}

double number_from(const json& value) {
  const double number = value.get<double>();
  if (!std::isfinite(number)) refuse("a number is not finite");
  return number;
}

void read_tensors(const json& tensors, const ModelSource& source, Sensitivities& result) {
  if (tensors.size() != source.tensors().size()) refuse("another number of tensors");
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].at("name") != source.tensors()[i].name) refuse("tensors in another order");
    result.candidates.push_back(types_from(tensors[i].at("types")));
    if (result.candidates.back() != candidate_types(source, i)) refuse("other candidates");
    std::vector<double> errors;
    for (const json& error : tensors[i].at("errors")) errors.push_back(number_from(error));
    if (errors.size() != result.candidates.back().size()) refuse("errors and types do not match");
    result.errors.push_back(std::move(errors));
  }
}

void read_groups(const json& groups, Sensitivities& result) {
  for (const json& item : groups) {
    ProbeGroup group{item.at("name"), integer_from<int64_t>(item.at("first_layer")), integer_from<int64_t>(item.at("last_layer")),
                     integers_from<size_t>(item.at("tensors"))};
    if (group.tensors.empty() || std::ranges::any_of(group.tensors, [&](size_t t) { return t >= result.candidates.size(); }))
      refuse("a group of tensors that do not exist");
    for (const json& of_group : item.at("probes")) {
      Probe probe;
      probe.group = result.groups.size();
      probe.types = types_from(of_group.at("types"));
      probe.kl = number_from(of_group.at("kl"));
      probe.kl_error = number_from(of_group.at("kl_error"));
      probe.reconstruction = number_from(of_group.at("reconstruction"));
      if (probe.types.size() != group.tensors.size()) refuse("a probe of other tensors than its group's");
      for (size_t k = 0; k < probe.types.size(); ++k) {
        const std::vector<DType>& candidates = result.candidates[group.tensors[k]];
        if (std::ranges::find(candidates, probe.types[k]) == candidates.end()) refuse("a probe of a type that is no candidate");
      }
      result.probes.push_back(std::move(probe));
    }
    result.groups.push_back(std::move(group));
  }
}

}  // namespace

std::string sensitivities_to_json(const Sensitivities& sensitivities, const ModelSource& source, std::string_view key) {
  ordered_json tensors = ordered_json::array(), groups = tensors;
  for (size_t i = 0; i < sensitivities.candidates.size(); ++i) {
    tensors.push_back(
        {{"name", source.tensors()[i].name}, {"types", names_of(sensitivities.candidates[i])}, {"errors", sensitivities.errors[i]}});
  }
  for (const ProbeGroup& group : sensitivities.groups) {
    groups.push_back({{"name", group.name},
                      {"first_layer", group.first_layer},
                      {"last_layer", group.last_layer},
                      {"tensors", group.tensors},
                      {"probes", ordered_json::array()}});
  }
  for (const Probe& probe : sensitivities.probes) {
    groups[probe.group]["probes"].push_back(
        {{"types", names_of(probe.types)}, {"kl", probe.kl}, {"kl_error", probe.kl_error}, {"reconstruction", probe.reconstruction}});
  }
  return ordered_json{{"schema", kSchema}, {"key", key}, {"tensors", tensors}, {"groups", groups}}.dump(1) + "\n";
}

Sensitivities sensitivities_from_json(std::string_view text, const ModelSource& source, std::string_view key) {
  Sensitivities result;
  try {
    const json root = parse_json_tree(text, kMaxDepth);
    if (root.at("schema") != kSchema) refuse("not of schema " + std::string(kSchema));
    if (root.at("key") != key) refuse("measured on something else");
    read_tensors(root.at("tensors"), source, result);
    read_groups(root.at("groups"), result);
  } catch (const json::exception& e) {
    refuse(e.what());
  }
  return result;
}

}  // namespace quern
