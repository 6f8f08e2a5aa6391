#include "runtime/moment_sums.h"

#include <algorithm>

#include "formats/base/error.h"
#include "formats/base/parallel.h"
#include "runtime/moment_product.h"

namespace quern {
namespace {

constexpr int64_t kHeldEvery = 8;

// A row of a panel times its share, appended.
void append_row(const float* panel, int64_t lane, int64_t n_columns, float share, std::vector<float>& rows) {
  for (int64_t j = 0; j < n_columns; ++j) rows.push_back(share * panel[j * kPanelWidth + lane]);
}

std::vector<float> mean_of(const std::vector<double>& sums, int64_t n_rows) {
  std::vector<float> mean;
  mean.reserve(sums.size());
  const double scale = n_rows > 0 ? 1.0 / static_cast<double>(n_rows) : 0.0;
  for (const double sum : sums) mean.push_back(static_cast<float>(sum * scale));
  return mean;
}

void add_all(const std::vector<double>& from, std::vector<double>& to) {
  for (size_t k = 0; k < from.size(); ++k) to[k] += from[k];
}

}  // namespace

MomentSums::MomentSums(int64_t n_columns, bool sequential) : n_columns_(n_columns), sequential_(sequential) {
  half_.resize(half_position(n_columns, 0));
  if (sequential) shift_.resize(static_cast<size_t>(n_columns * n_columns));
  held_.n_columns = n_columns;
  if (sequential) held_original_.n_columns = n_columns;
}

void MomentSums::add(const PackedRows& rows, std::span<const float> shares, const PackedRows* original) {
  QUERN_CHECK(rows.n_columns() == n_columns_ && (original != nullptr) == sequential_);
  std::vector<float> scaled, differences;
  for (int64_t p = 0; p < rows.n_panels(); ++p) {
    const bool hold = ++n_panels_ % kHeldEvery == 0;
    const int64_t n = std::min(kPanelWidth, rows.n_rows() - p * kPanelWidth);
    for (int64_t lane = 0; lane < n; ++lane) {
      const float share = shares.empty() ? 1.0f : shares[static_cast<size_t>(p * kPanelWidth + lane)];
      if (hold) {
        if (held_.n_rows() == kMostHeld) break;
        append_row(rows.panel(p), lane, n_columns_, share, held_.rows);
        if (sequential_) append_row(original->panel(p), lane, n_columns_, share, held_original_.rows);
        continue;
      }
      append_row(rows.panel(p), lane, n_columns_, share, scaled);
      if (sequential_) append_row(original->panel(p), lane, n_columns_, share, differences);
      ++n_rows_;
    }
  }
  for (size_t first = 0; first < scaled.size(); first += static_cast<size_t>(n_columns_)) {
    double norm = 0.0;
    for (size_t j = first; j < first + static_cast<size_t>(n_columns_); ++j)
      norm += static_cast<double>(scaled[j]) * static_cast<double>(scaled[j]);
    fourth_ += norm * norm;
  }
  for (size_t k = 0; k < differences.size(); ++k) differences[k] -= scaled[k];
  add_products(scaled, differences);
}

void MomentSums::add_products(const std::vector<float>& rows, const std::vector<float>& differences) {
  const int64_t n_rows = std::ssize(rows) / n_columns_, n_groups = (n_columns_ + kMomentRows - 1) / kMomentRows;
  parallel_for(n_groups, 4, [&](int64_t begin, int64_t end) {
    std::vector<double> triangle(static_cast<size_t>(kMomentRows * n_columns_));
    for (int64_t group = begin; group < end; ++group) {
      const int64_t first = group * kMomentRows, n_i = std::min(kMomentRows, n_columns_ - first), n_j = first + n_i;
      double* out[kMomentRows] = {};
      for (int64_t i = 0; i < n_i; ++i) {
        out[i] = triangle.data() + i * n_columns_;
        std::fill_n(out[i], n_j, 0.0);
      }
      add_moment_rows(rows.data(), rows.data(), n_rows, n_columns_, first, n_i, n_j, out);
      for (int64_t i = 0; i < n_i; ++i) {
        for (int64_t j = 0; j <= first + i; ++j) half_[half_position(first + i, j)] += out[i][j];
      }
      if (!sequential_) continue;
      for (int64_t i = 0; i < n_i; ++i) out[i] = shift_.data() + (first + i) * n_columns_;
      add_moment_rows(differences.data(), rows.data(), n_rows, n_columns_, first, n_i, n_columns_, out);
    }
  });
}

void MomentSums::add(const MomentSums& slice) {
  if (n_columns_ == 0) *this = MomentSums(slice.n_columns_, slice.sequential_);
  add_all(slice.half_, half_);
  add_all(slice.shift_, shift_);
  n_rows_ += slice.n_rows_;
  fourth_ += slice.fourth_;
}

InputStatistics MomentSums::statistics() const {
  return {{n_columns_, n_rows_, fourth_, mean_of(half_, n_rows_)}, held_, mean_of(shift_, n_rows_), held_original_};
}

}  // namespace quern
