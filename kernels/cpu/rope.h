#ifndef KERNELS_CPU_ROPE_H_
#define KERNELS_CPU_ROPE_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"

namespace onegrid::cpu {

// The rotations of some positions: cosines and sines of
// position / position_scale * theta^(-2 i / head_dim), i < head_dim / 2,
// computed in double. Made once per step and used in every layer that has the
// same theta.
class RopeAngles {
 public:
  // head_dim is even. With `pairs` above 0 only pairs i < pairs rotate.
  RopeAngles(int64_t head_dim, double theta, double position_scale,
             int64_t pairs = 0);

  // Row t of a following RopeNeox stands at positions[t].
  void SetPositions(absl::Span<const int32_t> positions,
                    kernels::ThreadPool& pool);

  int64_t head_dim() const { return 2 * half_; }
  int64_t rows() const { return rows_; }
  const float* cosines(int64_t row) const {
    return table_.data() + row * 2 * half_;
  }
  const float* sines(int64_t row) const { return cosines(row) + half_; }

 private:
  int64_t half_;
  int64_t rows_ = 0;
  kernels::AlignedBuffer<double> frequencies_;
  kernels::AlignedBuffer<float> table_;
};

// Rotates x [angles.rows(), heads, head_dim] in place: element i with element
// i + head_dim / 2 (the NeoX pairing).
void RopeNeox(const RopeAngles& angles, int64_t heads, float* x,
              kernels::ThreadPool& pool, kernels::Isa isa = kernels::BestIsa());

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_ROPE_H_
