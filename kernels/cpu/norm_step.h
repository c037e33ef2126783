#ifndef KERNELS_CPU_NORM_STEP_H_
#define KERNELS_CPU_NORM_STEP_H_

#include <cstdint>

#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/quantized_activations.h"

namespace onegrid::cpu {

// What a layer does to its residual stream before the next products: adds the
// norm of a branch to it, if there is one, and norms the sum. A row at a time,
// which stays in the L1 cache meanwhile.
struct NormStep {
  float* residual = nullptr;             // [m, k], += RmsNorm(branch)
  const float* weight = nullptr;         // [k]
  const float* branch = nullptr;         // [m, k]
  const float* branch_weight = nullptr;  // [k]
  float eps = 0;
};

// out [m, k] = RmsNorm(residual), bit for bit as RmsNormAdd and RmsNorm
// (elementwise.h) compute it; not an array of `step`.
void NormRows(const NormStep& step, int64_t m, int64_t k, float* out,
              kernels::ThreadPool& pool, kernels::Isa isa = kernels::BestIsa());

// The same as codes, bit for bit as QuantizeActivations makes them; k is a
// multiple of 32.
void QuantizeNormedRows(const NormStep& step, int64_t m, int64_t k,
                        CodeBits bits, QuantizedActivations* out,
                        kernels::ThreadPool& pool,
                        kernels::Isa isa = kernels::BestIsa());

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_NORM_STEP_H_
