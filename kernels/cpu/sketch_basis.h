// How the columns of a weight matrix are arranged, so that few bits tell most
// of its products with activations like those of a sample.
#ifndef KERNELS_CPU_SKETCH_BASIS_H_
#define KERNELS_CPU_SKETCH_BASIS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace onegrid::cpu {

// Directions along which the products of what is left out are kept.
inline constexpr int64_t kSketchDirections = 32;

// Weights w and activations x become w'[i] = w[order[i]] * scales[i] and
// x'[i] = x[order[i]] / scales[i]: w' x' = w x, exactly, since scales are
// powers of two. Columns whose activations are large among their weights are
// scaled up, so that they keep more of their bits, and stand together.
struct SketchBasis {
  std::vector<int32_t> order;  // [k]
  std::vector<float> scales;   // [k], 2^-12 to 2^12
  // [kSketchDirections, k], of x': about orthonormal, so that most of the norm
  // of an x' like those of the sample lies along them.
  std::vector<float> directions;

  int64_t k() const { return static_cast<int64_t>(order.size()); }
  // to [k] = x' of x [k].
  void Arrange(const float* x, float* to) const;
  // to [kSketchDirections] = the products of x' [k] with the directions.
  void Project(const float* arranged, float* to) const;
  // The norm of what is left of x' if `along` times the directions is taken
  // away.
  double NormAcross(absl::Span<const double> arranged,
                    const float* along) const;
};

// sample [rows, k], rows >= 1, k a multiple of 16. weight_squares [k]: the mean
// squares of the columns of the weights. What is not finite gives a basis that
// is as valid, but no good one. Some ms for 256 rows of 640.
SketchBasis ChooseSketchBasis(absl::Span<const float> sample, int64_t rows,
                              absl::Span<const float> weight_squares);

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_SKETCH_BASIS_H_
