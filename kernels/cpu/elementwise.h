#ifndef KERNELS_CPU_ELEMENTWISE_H_
#define KERNELS_CPU_ELEMENTWISE_H_

#include <cstdint>

#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"

// Row-wise and element-wise float ops. Output may be the same array as an
// input, but must not overlap it otherwise.

namespace onegrid::cpu {

// Rows of k floats that a thread takes at once of m: fewer cost more than they
// save.
int64_t RowGrain(int64_t m, int64_t k, const kernels::ThreadPool& pool);

// out [m, k]: each row of x [m, k] divided by sqrt(mean of squares + eps), then
// multiplied by weight [k].
void RmsNorm(const float* x, const float* weight, int64_t m, int64_t k,
             float eps, float* out, kernels::ThreadPool& pool,
             kernels::Isa isa = kernels::BestIsa());

// residual [m, k] += RmsNorm(x).
void RmsNormAdd(const float* x, const float* weight, int64_t m, int64_t k,
                float eps, float* residual, kernels::ThreadPool& pool,
                kernels::Isa isa = kernels::BestIsa());

// out[i] = gelu_tanh(gate[i]) * up[i], where gelu_tanh(x) =
// x / (1 + exp(-2 z)), z = sqrt(2 / pi) * (x + 0.044715 x^3), which equals
// 0.5 x (1 + tanh(z)). Relative error below (16 + 8 |z|) * 2^-24, absolute
// error below 1e-30 * |up| besides.
void GeluMul(const float* gate, const float* up, int64_t count, float* out,
             kernels::ThreadPool& pool, kernels::Isa isa = kernels::BestIsa());

// out[i] = cap * tanh(x[i] / cap), cap > 0: with e = exp(x * (2 / cap)), cap *
// ((e - 1) / (e + 1)). Absolute error below cap * kSoftCapError.
inline constexpr double kSoftCapError = 0x1p-22;
void SoftCap(const float* x, float cap, int64_t count, float* out,
             kernels::ThreadPool& pool, kernels::Isa isa = kernels::BestIsa());

// out[i] = a[i] + b[i].
void Add(const float* a, const float* b, int64_t count, float* out,
         kernels::ThreadPool& pool, kernels::Isa isa = kernels::BestIsa());

// out[i] = x[i] * factor.
void Scale(const float* x, float factor, int64_t count, float* out,
           kernels::ThreadPool& pool, kernels::Isa isa = kernels::BestIsa());

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_ELEMENTWISE_H_
