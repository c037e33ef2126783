#include "kernels/cpu/sketch_basis.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/base/check.h"
#include "kernels/base/clones.h"

namespace onegrid::cpu {
namespace {

// How the scale of a column follows from the ratio of mean squares: the power
// of it. Of 0.19 (0.25 makes both sides alike, if all activations are of a
// sample) fewer products were left in doubt on text unlike the sample's.
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

ONEGRID_CLONES double WideDot(const float* a, const double* b, int64_t k) {
  double lanes[kLanes] = {};
  for (int64_t i = 0; i < k; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {
      lanes[j] += double{a[i + j]} * b[i + j];
    }
  }
  return std::accumulate(lanes, lanes + kLanes, 0.0);
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

// The norm of the directions' products with each other, less 1 of each with
// itself.
double SkewOf(const std::vector<float>& directions, int64_t k) {
  double squares = 0;
  for (int64_t a = 0; a < kSketchDirections; ++a) {
    const float* row = directions.data() + a * k;
    for (int64_t b = 0; b <= a; ++b) {
      const float* other = directions.data() + b * k;
      double product = 0;
      for (int64_t i = 0; i < k; ++i) product += double{row[i]} * other[i];
      const double off = a == b && product != 0 ? product - 1 : product;
      squares += (a == b ? 1 : 2) * off * off;
    }
  }
  return std::sqrt(squares);
}

}  // namespace

void SketchBasis::Project(const float* scaled, float* to) const {
  for (int64_t d = 0; d < kSketchDirections; ++d) {
    to[d] = Dot(directions.data() + d * k(), scaled, k());
  }
}

SketchBasis::Rest SketchBasis::RestOf(absl::Span<const double> scaled,
                                      const float* along) const {
  std::vector<double> rest(scaled.begin(), scaled.end());
  for (int64_t d = 0; d < kSketchDirections; ++d) {
    TakeTimes(directions.data() + d * k(), double{along[d]}, k(), rest.data());
  }
  double squares = 0, along_squares = 0;
  for (const double value : rest) squares += value * value;
  for (int64_t d = 0; d < kSketchDirections; ++d) {
    const double product =
        WideDot(directions.data() + d * k(), rest.data(), k());
    along_squares += product * product;
  }
  return {std::sqrt(squares), std::sqrt(along_squares)};
}

std::vector<float> MeanSquares(absl::Span<const float> x, int64_t rows,
                               int64_t k) {
  std::vector<float> squares(static_cast<size_t>(k));
  for (size_t i = 0; i < x.size(); ++i) {
    squares[i % squares.size()] += x[i] * x[i] / static_cast<float>(rows);
  }
  return squares;
}

std::vector<float> ScalesBetween(absl::Span<const float> a,
                                 absl::Span<const float> b) {
  std::vector<float> wanted;
  for (size_t i = 0; i < a.size(); ++i) {
    const float ratio = a[i] / b[i];
    wanted.push_back(ratio > 1e-30f && ratio < 1e30f ? std::log2(ratio) : 0);
  }
  std::vector<float> sorted = wanted;
  const auto middle = sorted.begin() + static_cast<int64_t>(a.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  for (float& value : wanted) {
    const float exponent = kScalePower * (value - *middle);
    value = std::exp2(std::round(
        std::clamp<float>(exponent, -kMostDoublings, kMostDoublings)));
  }
  return wanted;
}

SketchBasis ChooseSketchBasis(absl::Span<const float> sample, int64_t rows,
                              absl::Span<const float> left_squares) {
  const auto k = static_cast<int64_t>(left_squares.size());
  KERNELS_CHECK(rows >= 1 && k % kLanes == 0 &&
                static_cast<int64_t>(sample.size()) == rows * k);
  SketchBasis basis;
  basis.scales = ScalesBetween(left_squares, MeanSquares(sample, rows, k));
  std::vector<float> scaled(sample.begin(), sample.end());
  for (size_t i = 0; i < scaled.size(); ++i) {
    scaled[i] *= basis.scales[i % basis.scales.size()];
  }
  basis.directions = LargestDirections(scaled, rows, k);
  basis.skew = SkewOf(basis.directions, k);
  if (!(basis.skew <= SketchBasis::kMostSkew)) {
    std::fill(basis.directions.begin(), basis.directions.end(), 0.0f);
    basis.skew = 0;
  }
  return basis;
}

}  // namespace onegrid::cpu
