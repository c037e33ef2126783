// Of activations like those of a sample: the directions that most of them lies
// along, and by how much their columns should count.
#ifndef KERNELS_CPU_SKETCH_BASIS_H_
#define KERNELS_CPU_SKETCH_BASIS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace onegrid::cpu {

// Directions along which the products of what is left out are kept.
inline constexpr int64_t kSketchDirections = 64;

// A product e x is e' x' with e'[i] = e[i] / scales[i], x'[i] = x[i] *
// scales[i]: exactly, since scales are powers of two. With scales that make e'
// and x' alike, the product of their norms is smallest.
struct SketchBasis {
  std::vector<float> scales;  // [k], 2^-12 to 2^12
  // [kSketchDirections, k], of x': about orthonormal, or zero, so that most of
  // the norm of an x' like those of the sample lies along them.
  std::vector<float> directions;
  // The directions times themselves are one, or zero, but for a matrix of at
  // most this norm. At most kMostSkew.
  double skew = 0;
  static constexpr double kMostSkew = 1e-3;

  int64_t k() const { return static_cast<int64_t>(scales.size()); }
  // to [kSketchDirections] = the products of x' [k] with the directions.
  void Project(const float* scaled, float* to) const;
  // What is left of x' if `along` times the directions is taken away: its norm,
  // and the norm of its products with the directions.
  struct Rest {
    double norm;
    double along;
  };
  Rest RestOf(absl::Span<const double> scaled, const float* along) const;
};

// [k]: for mean squares a and b of some columns, powers of two with which the
// roots of a / scale and b * scale are more alike, 2^-12 to 2^12.
std::vector<float> ScalesBetween(absl::Span<const float> a,
                                 absl::Span<const float> b);

// The mean squares of the columns of x [rows, k].
std::vector<float> MeanSquares(absl::Span<const float> x, int64_t rows,
                               int64_t k);

// sample [rows, k], rows >= 1, k a multiple of 16. left_squares [k]: the mean
// squares of the columns of what is left out. What is not finite gives a basis
// that is as valid, but no good one. Some 40 ms for 512 rows of 640.
SketchBasis ChooseSketchBasis(absl::Span<const float> sample, int64_t rows,
                              absl::Span<const float> left_squares);

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_SKETCH_BASIS_H_
