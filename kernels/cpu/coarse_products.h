// Products of activations with a weight matrix that are close to those wanted,
// and how close.
#ifndef KERNELS_CPU_COARSE_PRODUCTS_H_
#define KERNELS_CPU_COARSE_PRODUCTS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/cpu/quantized_activations.h"

namespace onegrid::cpu {

// The largest of `count` values; minus infinity of none. Those that are not
// numbers do not count.
float LargestOf(const float* values, int64_t count);

// to[t] = the largest of values 16 t to 16 t + 15, for each tile of the n.
void LargestOfTiles(const float* values, int64_t n, float* to,
                    kernels::Isa isa = kernels::BestIsa());

// A number of each row of the weights, at least 0, and the largest of each
// tile.
class RowBounds {
 public:
  explicit RowBounds(std::vector<float> values);

  const float* values() const { return values_.data(); }
  const float* of_tiles() const { return of_tiles_.data(); }
  float largest() const { return largest_; }

 private:
  std::vector<float> values_;
  std::vector<float> of_tiles_;
  float largest_;
};

// What is wanted are the products of Linear with activations in 16 bits.
// Thread-compatible.
class CoarseProducts {
 public:
  virtual ~CoarseProducts() = default;

  // out [m, n] = about the products of x [m, k]; of_tiles [m, tiles] = the
  // largest of each tile's, as LargestOfTiles says.
  virtual void Multiply(absl::Span<const float> x, int64_t m, float* out,
                        float* of_tiles) = 0;

  // The product of row m of the last x with row r of the weights is off by at
  // most the sum over i of Errors(m, exact)[i] * bounds()[i].values()[r].
  // Infinity if sums could overflow on their way. `exact`: that row of x in 16
  // bits.
  virtual std::vector<float> Errors(
      int64_t m, const QuantizedActivations& exact) const = 0;
  absl::Span<const RowBounds> bounds() const { return bounds_; }

 protected:
  std::vector<RowBounds> bounds_;
};

// The products with activations in 8 bits, half the work of 16. What that
// leaves out of the activations, e, has with a row w a product of at most
// |e| |w| (Cauchy, Schwarz).
class ByteProducts : public CoarseProducts {
 public:
  // `weights`, which have codes, and `pool` must outlive this object. Reads all
  // weights once, and holds 4 bytes for each row.
  ByteProducts(const PackedLinear& weights, kernels::ThreadPool& pool,
               kernels::Isa isa);

  void Multiply(absl::Span<const float> x, int64_t m, float* out,
                float* of_tiles) override;
  std::vector<float> Errors(int64_t m,
                            const QuantizedActivations& exact) const override;

 private:
  const PackedLinear& weights_;
  kernels::ThreadPool& pool_;
  const kernels::Isa isa_;
  QuantizedActivations codes_;
};

// Row m of `codes` beside what it stands for, x [k], each column times its
// scale [k]: the norm of what it leaves out, and one that neither of both
// exceeds.
struct Deviation {
  double rest;
  double norm;
};
Deviation DeviationOf(const QuantizedActivations& codes, int64_t m,
                      absl::Span<const double> x,
                      absl::Span<const float> scales);
// Whether sums of products with weights of at most this norm stay finite on
// their way, as they must to keep to a bound. Not where a norm is no number.
bool SumsStayFinite(const Deviation& x, double weight_norm);
// How far a sum over groups of products of floats can be from the exact one,
// for activations and weights whose norms have a product of 1.
double SumRounding(int64_t groups);
// By how much a norm of k numbers that was computed in floats may be too small.
float NormSlack(int64_t k);

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_COARSE_PRODUCTS_H_
