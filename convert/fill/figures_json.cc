#include "convert/fill/figures_json.h"

#include <nlohmann/json.hpp>

#include "formats/base/error.h"
#include "formats/base/json_tree.h"

namespace quern {
namespace {

using nlohmann::json;

json unit_to_json(Unit unit) {
  json entry = {{"tensor", unit.tensor}};
  if (unit.slice != Unit::kWhole) entry["slice"] = unit.slice;
  return entry;
}

Unit unit_from_json(const Plan& plan, const json& entry) {
  const Unit unit{integer_from<size_t>(entry.at("tensor")),
                  entry.contains("slice") ? integer_from<int64_t>(entry.at("slice")) : Unit::kWhole};
  const bool fits = unit.tensor < plan.tensors.size() && unit.slice >= Unit::kWhole && unit.slice < plan.tensors[unit.tensor].n_slices;
  if (!fits || entry.at("outputs").size() != plan.outputs.size()) throw Error(ErrorKind::kFormat, "figures do not fit the plan");
  return unit;
}

// Hardly any tensor has one.
void put_cut(json& output, const Cut& cut) {
  if (cut.n > 0) output["cut"] = {{"weights", cut.n}, {"largest", cut.largest}};
}

Cut cut_from_json(const json& output) {
  if (!output.contains("cut")) return {};
  return {integer_from<int64_t>(output.at("cut").at("weights")), output.at("cut").at("largest").get<double>()};
}

json to_json(Unit unit, const Figures& figures) {
  json entry = unit_to_json(unit);
  entry["energy"] = figures.energy;
  for (const Figure& figure : figures.outputs) {
    entry["outputs"].push_back({{"squared_error", figure.squared_error}, {"exact", figure.exact}});
    put_cut(entry["outputs"].back(), figure.cut);
  }
  return entry;
}

json to_json(Unit unit, const PartialFigures& figures) {
  json entry = unit_to_json(unit);
  entry["energy_digits"] = figures.energy.digits();
  for (size_t i = 0; i < figures.squared_errors.size(); ++i) {
    entry["outputs"].push_back(
        {{"squared_error_digits", figures.squared_errors[i].digits()}, {"exact", static_cast<bool>(figures.exact[i])}});
    put_cut(entry["outputs"].back(), figures.cuts[i]);
  }
  return entry;
}

ExactSum sum_from_json(const json& value) {
  const std::vector<uint32_t> digits = integers_from<uint32_t>(value);
  if (digits.size() > ExactSum::kDigits) throw Error(ErrorKind::kFormat, "a sum has more digits than doubles add up to");
  return ExactSum::from_digits(digits);
}

}  // namespace

json figures_to_json(const PipelineResult& result, size_t first, size_t last) {
  json figures = json::array();
  for (size_t t = first; t < last; ++t) {
    const TensorFigures& tensor = result.figures[t];
    if (!tensor.outputs.empty()) figures.push_back(to_json({t, Unit::kWhole}, tensor));
    for (size_t s = 0; s < tensor.slices.size(); ++s) {
      if (!tensor.slices[s].outputs.empty()) figures.push_back(to_json({t, static_cast<int64_t>(s)}, tensor.slices[s]));
    }
  }
  for (const auto& [unit, partial] : result.partial) {
    if (unit.tensor >= first && unit.tensor < last) figures.push_back(to_json(unit, partial));
  }
  return figures;
}

void add_figures(const Plan& plan, const json& array, std::vector<TensorFigures>& figures, std::map<Unit, PartialFigures>& partial) {
  for (const json& entry : array) {
    const Unit unit = unit_from_json(plan, entry);
    const json& outputs = entry.at("outputs");
    if (entry.contains("energy")) {
      Figures complete;
      complete.energy = entry.at("energy").get<double>();
      for (const json& output : outputs)
        complete.outputs.push_back({output.at("squared_error").get<double>(), output.at("exact").get<bool>(), cut_from_json(output)});
      set_figures(plan.tensors[unit.tensor], unit, std::move(complete), figures[unit.tensor]);
      continue;
    }
    PartialFigures piece(plan.outputs.size());
    piece.energy = sum_from_json(entry.at("energy_digits"));
    for (size_t i = 0; i < outputs.size(); ++i) {
      piece.squared_errors[i] = sum_from_json(outputs[i].at("squared_error_digits"));
      piece.exact[i] = outputs[i].at("exact").get<bool>();
      piece.cuts[i] = cut_from_json(outputs[i]);
    }
    partial.try_emplace(unit, plan.outputs.size()).first->second.add(piece);
  }
}

}  // namespace quern
