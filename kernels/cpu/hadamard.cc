#include "kernels/cpu/hadamard.h"

#include <algorithm>

#include "kernels/base/check.h"
#include "kernels/cpu/vector_kernels.h"

namespace onegrid::cpu {

void Hadamard(float* x, int64_t m, int64_t d, kernels::ThreadPool& pool,
              kernels::Isa isa) {
  KERNELS_CHECK(d >= 16 && (d & (d - 1)) == 0);
  const VectorKernels& run = VectorKernelsFor(isa);
  pool.ParallelFor(m, std::max(pool.GrainFor(m), 1 + 16384 / d),
                   [&](int64_t begin, int64_t end, int) {
                     for (int64_t row = begin; row < end; ++row) {
                       run.hadamard(x + row * d, d);
                     }
                   });
}

}  // namespace onegrid::cpu
