#include "convert/fill/figures.h"

#include <utility>

#include "formats/base/error.h"

namespace quern {

void PartialFigures::add(const PartialFigures& other) {
  QUERN_CHECK(squared_errors.size() == other.squared_errors.size());
  energy.add(other.energy);
  for (size_t i = 0; i < squared_errors.size(); ++i) {
    squared_errors[i].add(other.squared_errors[i]);
    exact[i] = exact[i] && other.exact[i];
    cuts[i].add(other.cuts[i]);
  }
}

Figures PartialFigures::rounded() const {
  Figures figures;
  figures.energy = energy.value();
  for (size_t i = 0; i < squared_errors.size(); ++i)
    figures.outputs.push_back({squared_errors[i].value(), static_cast<bool>(exact[i]), cuts[i]});
  return figures;
}

void set_figures(const PlannedTensor& tensor, Unit unit, Figures figures, TensorFigures& all) {
  if (unit.slice == Unit::kWhole) {
    static_cast<Figures&>(all) = std::move(figures);
    return;
  }
  all.slices.resize(static_cast<size_t>(tensor.n_slices));
  all.slices[static_cast<size_t>(unit.slice)] = std::move(figures);
}

}  // namespace quern
