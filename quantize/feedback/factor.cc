#include "quantize/feedback/factor.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "formats/base/error.h"
#include "formats/base/parallel.h"
#include "quantize/feedback/factor_kernel.h"

// H = R D R^T is factorised from the right to the left, because a column's feedback comes from the columns before it: column j of R is
// known once all columns to its right are. Blocks of 64 columns are the unit of work. For each of them the products of what lies to the
// right are subtracted from H (nearly all of the time, in factor_simd.cc), the square on the diagonal is factorised, and the rows above it
// follow by substitution. Sums are in double and have one order; R and D are stored as float, and whatever follows uses the stored
// values, so that the factor is exact for a matrix very near H.
//
// Second moments of few inputs are singular or nearly so. Damping adds a share of the mean diagonal, and grows until every pivot is safely
// positive.

namespace quern {
namespace {

// sum over the whole matrix of f(element number), given the halves.
template <typename F>
double sum_over_matrix(int64_t n, F f) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    double below = 0.0;
    for (int64_t j = 0; j < i; ++j) below += f(half_position(i, j));
    sum += 2.0 * below + f(half_position(i, i));
  }
  return sum;
}

double mean_of_diagonal(const SecondMoment& moment) {
  double sum = 0.0;
  for (int64_t i = 0; i < moment.n_columns; ++i) sum += static_cast<double>(moment.half[half_position(i, i)]);
  return moment.n_columns > 0 ? sum / static_cast<double>(moment.n_columns) : 0.0;
}

// One block of columns of R, from the right to the left: what the blocks to the right explain is subtracted, the block itself is
// factorised, and the rows above follow from it.
class Factorisation {
 public:
  Factorisation(const SecondMoment& moment, double damping) : moment_(moment), n_(moment.n_columns) {
    out_.n_columns = n_;
    out_.damping = damping;
    mean_ = mean_of_diagonal(moment);
    out_.d.resize(static_cast<size_t>(n_));
    const int64_t last = out_.n_tiles() - 1;
    const int64_t columns = out_.tile_columns(last);
    out_.r.resize(FeedbackFactor::tile_offset(last) + static_cast<size_t>((last * FeedbackFactor::kTile + columns) * columns));
  }

  // False when a pivot is too small to trust.
  bool run() {
    for (int64_t first = (n_ - 1) / kFactorBlock * kFactorBlock; first >= 0; first -= kFactorBlock) {
      if (!column_block(first, std::min(kFactorBlock, n_ - first))) return false;
    }
    const auto [least, most] = std::minmax_element(out_.d.begin(), out_.d.end());
    out_.condition = static_cast<double>(*most) / static_cast<double>(*least);
    return true;
  }

  FeedbackFactor take() { return std::move(out_); }

 private:
  double element(int64_t i, int64_t j) const {
    const double h = static_cast<double>(moment_.half[i >= j ? half_position(i, j) : half_position(j, i)]);
    if (i != j) return h;
    return (h > 0.0 ? h : mean_) + out_.damping * mean_;
  }

  // Row i of R from column `first` of its tile on.
  float* row(int64_t i, int64_t first) {
    const int64_t tile = first / FeedbackFactor::kTile;
    return out_.r.data() + FeedbackFactor::tile_offset(tile) + i * out_.tile_columns(tile) + (first - tile * FeedbackFactor::kTile);
  }

  bool column_block(int64_t first, int64_t columns) {
    const int64_t end = first + columns;
    pack_scaled(first, columns);
    std::vector<double> work(static_cast<size_t>(end * kFactorBlock));
    parallel_for(end, 16, [&](int64_t begin, int64_t stop) {
      for (int64_t i = begin; i < stop; ++i) {
        double* a = work.data() + i * kFactorBlock;
        for (int64_t c = 0; c < columns; ++c) a[c] = element(i, first + c);
        for (int64_t k = end; k < n_;) {
          const int64_t stop_k = std::min(n_, (k / FeedbackFactor::kTile + 1) * FeedbackFactor::kTile);
          subtract_product(row(i, k), packed_.data() + (k - end) * kFactorBlock, stop_k - k, a);
          k = stop_k;
        }
      }
    });
    if (!diagonal_block(first, columns, work.data() + first * kFactorBlock)) return false;
    parallel_for(first, 64, [&](int64_t begin, int64_t stop) {
      for (int64_t i = begin; i < stop; ++i) {
        double* a = work.data() + i * kFactorBlock;
        for (int64_t j = columns - 1; j >= 0; --j) {
          for (int64_t k = j + 1; k < columns; ++k) a[j] -= a[k] * block_[j * kFactorBlock + k];
          a[j] /= block_[j * kFactorBlock + j];
          // a holds R_ik from here on; block_ holds D_k R_jk.
          row(i, first)[j] = static_cast<float>(a[j]);
        }
      }
    });
    return true;
  }

  // packed_[k - end][c] = D_k R_(first + c)k for all columns k to the right of the block.
  void pack_scaled(int64_t first, int64_t columns) {
    const int64_t end = first + columns;
    packed_.assign(static_cast<size_t>((n_ - end) * kFactorBlock), 0.0);
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t k = end; k < n_; ++k) {
        const int64_t tile = k / FeedbackFactor::kTile * FeedbackFactor::kTile;
        packed_[static_cast<size_t>((k - end) * kFactorBlock + c)] =
            static_cast<double>(row(first + c, tile)[k - tile]) * static_cast<double>(out_.d[static_cast<size_t>(k)]);
      }
    }
  }

  // a: the block's own rows. block_[j][k] = D_k R_jk for k > j, D_j on the diagonal.
  bool diagonal_block(int64_t first, int64_t columns, double* a) {
    block_.assign(static_cast<size_t>(kFactorBlock * kFactorBlock), 0.0);
    const double least = 1e-6 * (1.0 + out_.damping) * mean_;
    for (int64_t j = columns - 1; j >= 0; --j) {
      const double pivot = a[j * kFactorBlock + j];
      if (!(pivot > least)) return false;
      // d is stored as float; everything after uses the stored value, so that R D R^T stays consistent.
      out_.d[static_cast<size_t>(first + j)] = static_cast<float>(pivot);
      const double d = static_cast<double>(out_.d[static_cast<size_t>(first + j)]);
      block_[static_cast<size_t>(j * kFactorBlock + j)] = d;
      float* own = row(first + j, first);
      std::fill(own, own + columns, 0.0f);
      own[j] = 1.0f;
      for (int64_t k = j + 1; k < columns; ++k) {
        own[k] = static_cast<float>(block_[static_cast<size_t>(j * kFactorBlock + k)] / block_[static_cast<size_t>(k * kFactorBlock + k)]);
      }
      for (int64_t i = 0; i < j; ++i) {
        const double scaled = a[i * kFactorBlock + j];  // D_j R_ij
        block_[static_cast<size_t>(i * kFactorBlock + j)] = scaled;
        for (int64_t k = 0; k <= i; ++k) a[i * kFactorBlock + k] -= scaled * (a[k * kFactorBlock + j] / d);
      }
      for (int64_t i = 0; i < j; ++i) {
        for (int64_t k = i + 1; k < j; ++k) a[i * kFactorBlock + k] = a[k * kFactorBlock + i];
      }
    }
    return true;
  }

  const SecondMoment& moment_;
  const int64_t n_;
  double mean_ = 0.0;
  FeedbackFactor out_;
  std::vector<double> packed_;
  std::vector<double> block_;
};

}  // namespace

double shrinkage(const SecondMoment& sample, std::span<const float> target) {
  if (sample.n_rows <= 0) return 1.0;
  QUERN_CHECK(target.size() == sample.half.size());
  const auto n = static_cast<double>(sample.n_rows);
  const double norm = sum_over_matrix(sample.n_columns, [&](size_t k) {
    const auto h = static_cast<double>(sample.half[k]);
    return h * h;
  });
  const double distance = sum_over_matrix(sample.n_columns, [&](size_t k) {
    const double apart = static_cast<double>(sample.half[k]) - static_cast<double>(target[k]);
    return apart * apart;
  });
  const double variance = std::max(0.0, sample.fourth / n - norm) / n;
  return distance > variance ? variance / distance : 1.0;
}

double shrink_towards(SecondMoment& sample, const SecondMoment& common) {
  QUERN_CHECK(sample.n_columns == common.n_columns);
  const double weight = shrinkage(sample, common.half);
  if (weight >= 1.0) {
    sample.half = common.half;
    return 1.0;
  }
  for (size_t k = 0; k < sample.half.size(); ++k) {
    sample.half[k] =
        static_cast<float>((1.0 - weight) * static_cast<double>(sample.half[k]) + weight * static_cast<double>(common.half[k]));
  }
  return weight;
}

FeedbackFactor factorise(const SecondMoment& moment, double least_damping) {
  QUERN_CHECK(moment.n_columns > 0 && moment.half.size() == half_position(moment.n_columns, 0));
  const double mean = mean_of_diagonal(moment);
  if (!std::isfinite(mean)) throw Error(ErrorKind::kFormat, "second moments are not finite");
  SecondMoment copy;  // only when there is nothing: identity
  if (!(mean > 0.0)) {
    copy = moment;
    for (int64_t i = 0; i < moment.n_columns; ++i) copy.half[half_position(i, i)] = 1.0f;
  }
  for (double damping = least_damping; damping <= 10.0; damping *= 10.0) {
    Factorisation factorisation(mean > 0.0 ? moment : copy, damping);
    if (factorisation.run()) return factorisation.take();
  }
  throw Error(ErrorKind::kFormat, "second moments of " + std::to_string(moment.n_rows) + " rows have no stable factor");
}

}  // namespace quern
