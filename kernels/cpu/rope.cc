#include "kernels/cpu/rope.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/check.h"
#include "kernels/cpu/vector_kernels.h"

namespace onegrid::cpu {

RopeAngles::RopeAngles(int64_t head_dim, double theta, double position_scale,
                       int64_t pairs)
    : half_(head_dim / 2), frequencies_(static_cast<size_t>(head_dim / 2)) {
  KERNELS_CHECK(head_dim > 0 && head_dim % 2 == 0);
  for (int64_t i = 0; i < half_; ++i) {
    if (pairs > 0 && i >= pairs) {
      frequencies_[static_cast<size_t>(i)] = 0;
      continue;
    }
    frequencies_[static_cast<size_t>(i)] =
        std::pow(theta, -2.0 * static_cast<double>(i) /
                            static_cast<double>(head_dim)) /
        position_scale;
  }
}

void RopeAngles::SetPositions(absl::Span<const int32_t> positions,
                              kernels::ThreadPool& pool) {
  rows_ = static_cast<int64_t>(positions.size());
  const size_t needed = static_cast<size_t>(rows_ * 2 * half_);
  if (table_.size() < needed) table_ = kernels::AlignedBuffer<float>(needed);
  // A row takes some microseconds.
  const int64_t grain = std::max<int64_t>(4, pool.GrainFor(rows_));
  pool.ParallelFor(rows_, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      float* to = table_.data() + row * 2 * half_;
      const double position = positions[static_cast<size_t>(row)];
      for (int64_t i = 0; i < half_; ++i) {
        const double angle = position * frequencies_[static_cast<size_t>(i)];
        to[i] = static_cast<float>(std::cos(angle));
        to[half_ + i] = static_cast<float>(std::sin(angle));
      }
    }
  });
}

void RopeNeox(const RopeAngles& angles, int64_t heads, float* x,
              kernels::ThreadPool& pool, kernels::Isa isa) {
  const VectorKernels& run = VectorKernelsFor(isa);
  const int64_t head_dim = angles.head_dim();
  const int64_t row_floats = std::max<int64_t>(1, heads * head_dim);
  const int64_t grain =
      std::max(pool.GrainFor(angles.rows()), 1 + 16384 / row_floats);
  pool.ParallelFor(angles.rows(), grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t h = 0; h < heads; ++h) {
        run.rope(angles.cosines(row), angles.sines(row), head_dim / 2,
                 x + (row * heads + h) * head_dim);
      }
    }
  });
}

}  // namespace onegrid::cpu
