// Products of a matrix in 8 bits, told closely enough by the upper 4 of them.
#ifndef KERNELS_CPU_SKETCH_PRODUCTS_H_
#define KERNELS_CPU_SKETCH_PRODUCTS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/coarse_products.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/cpu/quantized_activations.h"
#include "kernels/cpu/sketch_basis.h"
#include "kernels/cpu/tile_slices.h"
#include "kernels/cpu/vector_kernels.h"

namespace onegrid::cpu {

// A row w of the weights is q + e: q what the upper plane of its codes tells
// (nibble_planes.h), and what that leaves out. Activations x, in the scales of
// a SketchBasis, are V c + b: c their products with the directions V, which are
// those that a sample of activations mostly had, b the rest. So w x = q x +
// (V^T e) c + f b, f being what V leaves of e. The products here are those of q
// with x and of p, V^T e in int4, with c, both in 8 bits. They are off by at
// most
//   |q| |x - x in 8 bits| + |p| |c - c in 8 bits| + |V^T e - p| |c| + |f| |b|.
// Beside the weights this takes 53 bytes a row: of Gemma 3 270M's vocabulary,
// 178 MB, a product reads 104 MB, 9 of which are p.
//
// It learns from the activations it is told of, then encodes a part of the
// weights with each call: some 5 ms for Gemma 3 270M on two Zen 3 cores; the
// call between takes some 50. Thread-compatible.
class SketchProducts : public CoarseProducts {
 public:
  // Rows of activations of the sample, and calls that encode the weights.
  static constexpr int64_t kSampleRows = 512;
  static constexpr int64_t kEncodingCalls = 128;

  // What a product with a sketch of these weights reads.
  static int64_t BytesFor(const PackedLinear& weights);

  // `weights`, which are split, and `pool` must outlive this object.
  SketchProducts(const PackedLinear& weights, kernels::ThreadPool& pool,
                 kernels::Isa isa);

  // x [rows, k]: like those that will be multiplied. Until ready().
  void Learn(absl::Span<const float> x);
  bool ready() const { return !bounds_.empty(); }

  // If ready().
  void Multiply(absl::Span<const float> x, int64_t m, float* out,
                float* of_tiles) override;
  std::vector<float> Errors(int64_t m,
                            const QuantizedActivations& exact) const override;

 private:
  // Of each row of the weights: |q|, the larger of |p| and |V^T e|, |V^T e - p|
  // and |f|.
  enum Bound { kTold, kCoded, kAlong, kAcross, kBounds };
  // For one thread.
  struct Scratch;
  struct SliceScratch;

  void BeginEncoding();
  void EncodeTile(int64_t tile, Scratch& scratch);
  void EndEncoding();
  // The products of the m rows of x with the tiles of a part of a slice.
  void MultiplySlicePart(const TileSlice& part, int64_t m,
                         SliceScratch& scratch, float* out,
                         float* of_tiles) const;
  // `count` sums of both sides, `told` in units of kUpperUnit, and the largest
  // of each tile, the last of which may have fewer rows.
  void AddUp(const float* told, const float* rest, int64_t count, float* sums,
             float* of_tiles) const;

  const PackedLinear& weights_;
  kernels::ThreadPool& pool_;
  const kernels::Isa isa_;
  const VectorKernels& vectors_;
  std::vector<float> sample_;
  SketchBasis basis_;
  std::vector<float> code_scales_;  // [k], of x in 8 bits for its norm
  int64_t tiles_encoded_ = 0;
  std::vector<float> row_bounds_[kBounds];       // until all are encoded
  kernels::AlignedBuffer<uint8_t> along_tiles_;  // p, as Int4Layout
  std::vector<float> along_;                     // c of each row of x
  QuantizedActivations codes_, along_codes_;     // x and c
};

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_SKETCH_PRODUCTS_H_
