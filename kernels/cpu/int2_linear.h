#ifndef KERNELS_CPU_INT2_LINEAR_H_
#define KERNELS_CPU_INT2_LINEAR_H_

#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/quantized_activations.h"
#include "kernels/cpu/tile_format.h"

namespace onegrid::cpu {

// A weight matrix [n, k] of codes -1..2 in groups of 64 along k, each with an
// f16 scale, repacked once for the linear kernels (layout: linear_kernels.h).
// The same bytes serve every instruction set and float mode. Codes and scales
// are those of the file, bit for bit. Immutable, so safe to share.
class PackedInt2Linear {
 public:
  // blocks: n * k / 64 GGUF Q2_0 blocks (f16 scale, 16 bytes of codes), row by
  // row; they are not needed afterwards. Scales may be negative.
  // InvalidArgument: n or k is not positive, k is not a multiple of 64, or
  // blocks has another size than n and k ask for; a scale is not finite.
  static absl::StatusOr<PackedInt2Linear> FromQ2_0(
      absl::Span<const uint8_t> blocks, int64_t n, int64_t k,
      kernels::ThreadPool& pool, const BlocksDone& done = nullptr);

  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  int64_t bytes() const { return static_cast<int64_t>(tiles_.size()); }
  const uint8_t* tiles() const { return tiles_.data(); }

  // out [k] = row `row` as code * scale. 0 <= row < n().
  void DequantizeRow(int64_t row, absl::Span<float> out) const;

 private:
  PackedInt2Linear(int64_t n, int64_t k, kernels::AlignedBuffer<uint8_t> tiles)
      : n_(n), k_(k), tiles_(std::move(tiles)) {}

  int64_t n_;
  int64_t k_;
  kernels::AlignedBuffer<uint8_t> tiles_;
};

// out [m, n] = x [m, k] * w^T. In each group of 32 activations an exact integer
// dot product, scaled and summed over groups in f32. x.k() == w.k().
void Int2Linear(const QuantizedActivations& x, const PackedInt2Linear& w,
                float* out, kernels::ThreadPool& pool,
                kernels::Isa isa = kernels::BestIsa());

// The same product with x [m, k] in f32 and the weights as code * scale in f32.
void Int2LinearF32(const float* x, int64_t m, const PackedInt2Linear& w,
                   float* out, kernels::ThreadPool& pool,
                   kernels::Isa isa = kernels::BestIsa());

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_INT2_LINEAR_H_
