// Products of a matrix in 8 bits, told closely enough by one in 4 bits.
#ifndef KERNELS_CPU_SKETCH_PRODUCTS_H_
#define KERNELS_CPU_SKETCH_PRODUCTS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/coarse_products.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/cpu/quantized_activations.h"
#include "kernels/cpu/sketch_basis.h"

namespace onegrid::cpu {

// A row w of the weights, its columns arranged as a SketchBasis says, is q + e:
// q in int4 with groups of 32, and what that leaves out. Activations x are V c
// + b: c their products with the directions V, which are those that a sample of
// activations mostly had, b the rest. So w x = q x + (V^T e) c + e b. The
// sketch holds q and p, V^T e in int4, as one matrix of k + 32 columns, and
// gives its product with (x, c), in 8 bits. That is off by at most
//   |(q, p)| |what 8 bits leave out of (x, c)| + |V^T e - p| |c| + |e| |b|.
// Of Gemma 3 270M's vocabulary, 170 MB, a sketch has 99 MB.
//
// It learns from the activations it is told of, then encodes a part of the
// weights with each call: some 5 ms for Gemma 3 270M on two Zen 3 cores. The
// call between takes the memory, which costs once 40 to 190 ms there.
// Thread-compatible.
class SketchProducts : public CoarseProducts {
 public:
  // Rows of activations of the sample, and calls that encode the weights.
  static constexpr int64_t kSampleRows = 256;
  static constexpr int64_t kEncodingCalls = 128;

  // What a sketch of these weights takes.
  static int64_t BytesFor(const PackedLinear& weights);

  // `weights`, which have codes, and `pool` must outlive this object.
  SketchProducts(const PackedLinear& weights, kernels::ThreadPool& pool,
                 kernels::Isa isa);

  // x [rows, k]: like those that will be multiplied. Until ready().
  void Learn(absl::Span<const float> x);
  bool ready() const { return sketch_.has_value(); }
  // Read by a product; 0 until ready().
  int64_t bytes() const { return ready() ? sketch_->bytes() : 0; }

  // If ready().
  void Multiply(absl::Span<const float> x, int64_t m, float* out) override;
  std::vector<float> Errors(int64_t m,
                            const QuantizedActivations& exact) const override;

 private:
  // Of each row of the weights, squared until all are encoded: |(q, p)|,
  // |V^T e - p| and |e|.
  enum Bound { kWhole, kAlong, kAcross, kBounds };
  struct Encoding {
    kernels::AlignedBuffer<uint8_t> tiles;
    std::vector<float> bounds[kBounds];
    int64_t tiles_done = 0;
  };

  int64_t groups() const { return weights_.k() / kLinearGroup + 1; }
  void BeginEncoding();
  // values: [k][16], for what the tile's weights are and what is left of them.
  void EncodeTile(int64_t tile, float* values, float* arranged);
  void EndEncoding();

  const PackedLinear& weights_;
  kernels::ThreadPool& pool_;
  const kernels::Isa isa_;
  std::vector<float> sample_;
  SketchBasis basis_;
  std::unique_ptr<Encoding> encoding_;
  std::optional<PackedLinear> sketch_;
  std::vector<float> arranged_;  // (x, c) of each row
  QuantizedActivations codes_;   // the same in 8 bits
};

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_SKETCH_PRODUCTS_H_
