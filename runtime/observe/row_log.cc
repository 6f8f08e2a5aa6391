#include "runtime/observe/row_log.h"

namespace quern {

size_t RowLog::add(const PackedRows& rows) {
  if (!in_file_) {
    rows_.push_back(rows);
    return rows_.size() - 1;
  }
  const auto n = std::ssize(rows.panels());
  file_.write(n_floats_, n, rows.panels().data());
  places_.push_back({n_floats_, rows.n_rows(), rows.n_columns()});
  n_floats_ += n;
  return places_.size() - 1;
}

PackedRows RowLog::get(size_t number) const {
  if (!in_file_) return rows_[number];
  const Place& place = places_[number];
  std::vector<float> panels(static_cast<size_t>((place.n_rows + kPanelWidth - 1) / kPanelWidth * kPanelWidth * place.n_columns));
  file_.read(place.offset, std::ssize(panels), panels.data());
  return {std::move(panels), place.n_rows, place.n_columns};
}

}  // namespace quern
