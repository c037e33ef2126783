#include "kernels/cpu/sketch_basis.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/base/check.h"
#include "kernels/base/clones.h"

namespace onegrid::cpu {
namespace {

// How the scale of a column follows from the ratio of the mean squares of its
// activations and its weights: the power of it. Of 0.19 (0.25 makes what is
// left of weights and of activations alike, if all of them are of a sample)
// fewer products were left in doubt on text unlike the sample's.
constexpr float kScalePower = 0.19f;
constexpr int kMostDoublings = 12;
// Of the sample's covariance applied to the directions.
constexpr int kIterations = 5;
// Rows of vectors are handled in lanes of 16: k is a multiple.
constexpr int64_t kLanes = 16;

ONEGRID_CLONES float Dot(const float* a, const float* b, int64_t k) {
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < k; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += a[i + j] * b[i + j];
  }
  return std::accumulate(lanes, lanes + kLanes, 0.0f);
}

ONEGRID_CLONES void AddTimes(const float* x, float factor, int64_t k,
                             float* to) {
  for (int64_t i = 0; i < k; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) to[i + j] += factor * x[i + j];
  }
}

ONEGRID_CLONES void TakeTimes(const float* x, double factor, int64_t k,
                              double* from) {
  for (int64_t i = 0; i < k; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {
      from[i + j] -= factor * double{x[i + j]};
    }
  }
}

// Makes rows [rows, k] orthonormal; those that depend on others, zero.
void Orthonormalize(int64_t rows, int64_t k, float* x) {
  for (int64_t r = 0; r < rows; ++r) {
    float* row = x + r * k;
    const float before = Dot(row, row, k);
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t other = 0; other < r; ++other) {
        const float* base = x + other * k;
        AddTimes(base, -Dot(base, row, k), k, row);
      }
    }
    const float squares = Dot(row, row, k);
    // Beyond these, squares lose their precision, and the norm would not be 1.
    const bool independent =
        squares > before * 1e-10f && squares > 1e-30f && squares < 1e30f;
    const float factor = independent ? 1 / std::sqrt(squares) : 0.0f;
    for (int64_t i = 0; i < k; ++i) {
      row[i] = independent ? row[i] * factor : 0.0f;
    }
  }
}

// The directions in which y [rows, k] is largest, by orthogonal iteration.
std::vector<float> LargestDirections(const std::vector<float>& y, int64_t rows,
                                     int64_t k) {
  std::vector<float> directions(static_cast<size_t>(kSketchDirections * k));
  uint32_t state = 1;
  for (float& value : directions) {
    state = state * 1664525u + 1013904223u;
    value = state >> 31 != 0 ? 1.0f : -1.0f;
  }
  std::vector<float> next(directions.size());
  for (int i = 0; i < kIterations; ++i) {
    Orthonormalize(kSketchDirections, k, directions.data());
    std::fill(next.begin(), next.end(), 0.0f);
    for (int64_t row = 0; row < rows; ++row) {
      const float* from = y.data() + row * k;
      for (int64_t d = 0; d < kSketchDirections; ++d) {
        AddTimes(from, Dot(from, directions.data() + d * k, k), k,
                 next.data() + d * k);
      }
    }
    directions.swap(next);
  }
  Orthonormalize(kSketchDirections, k, directions.data());
  return directions;
}

std::vector<float> MeanSquares(absl::Span<const float> x, int64_t rows,
                               int64_t k) {
  std::vector<float> squares(static_cast<size_t>(k));
  for (size_t i = 0; i < x.size(); ++i) {
    squares[i % squares.size()] += x[i] * x[i] / static_cast<float>(rows);
  }
  return squares;
}

}  // namespace

void SketchBasis::Arrange(const float* x, float* to) const {
  for (int64_t i = 0; i < k(); ++i) {
    const auto at = static_cast<size_t>(i);
    to[i] = x[order[at]] / scales[at];
  }
}

void SketchBasis::Project(const float* arranged, float* to) const {
  for (int64_t d = 0; d < kSketchDirections; ++d) {
    to[d] = Dot(directions.data() + d * k(), arranged, k());
  }
}

double SketchBasis::NormAcross(absl::Span<const double> arranged,
                               const float* along) const {
  std::vector<double> rest(arranged.begin(), arranged.end());
  for (int64_t d = 0; d < kSketchDirections; ++d) {
    TakeTimes(directions.data() + d * k(), double{along[d]}, k(), rest.data());
  }
  double squares = 0;
  for (const double value : rest) squares += value * value;
  return std::sqrt(squares);
}

SketchBasis ChooseSketchBasis(absl::Span<const float> sample, int64_t rows,
                              absl::Span<const float> weight_squares) {
  const auto k = static_cast<int64_t>(weight_squares.size());
  KERNELS_CHECK(rows >= 1 && k % kLanes == 0 &&
                static_cast<int64_t>(sample.size()) == rows * k);
  const std::vector<float> squares = MeanSquares(sample, rows, k);
  std::vector<float> wanted;
  for (size_t i = 0; i < squares.size(); ++i) {
    const float ratio = squares[i] / weight_squares[i];
    wanted.push_back(ratio > 1e-30f && ratio < 1e30f ? std::log2(ratio) : 0);
  }
  std::vector<float> sorted = wanted;
  const auto middle = sorted.begin() + k / 2;
  std::nth_element(sorted.begin(), middle, sorted.end());

  std::vector<float> exponents, large;
  for (size_t i = 0; i < squares.size(); ++i) {
    exponents.push_back(std::round(std::clamp<float>(
        kScalePower * (wanted[i] - *middle), -kMostDoublings, kMostDoublings)));
    large.push_back(std::isfinite(squares[i])
                        ? squares[i] * std::exp2(-2 * exponents[i])
                        : 0.0f);
  }
  SketchBasis basis;
  basis.order.resize(squares.size());
  std::iota(basis.order.begin(), basis.order.end(), 0);
  std::stable_sort(
      basis.order.begin(), basis.order.end(), [&large](int32_t a, int32_t b) {
        return large[static_cast<size_t>(a)] > large[static_cast<size_t>(b)];
      });
  for (const int32_t column : basis.order) {
    basis.scales.push_back(std::exp2(exponents[static_cast<size_t>(column)]));
  }
  std::vector<float> arranged(sample.size());
  for (int64_t row = 0; row < rows; ++row) {
    basis.Arrange(sample.data() + row * k, arranged.data() + row * k);
  }
  basis.directions = LargestDirections(arranged, rows, k);
  return basis;
}

}  // namespace onegrid::cpu
