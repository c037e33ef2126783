#include "kernels/cpu/elementwise.h"

#include <algorithm>

#include "kernels/cpu/vector_kernels.h"

namespace onegrid::cpu {
namespace {

// Floats below which a loop over threads costs more than it saves.
constexpr int64_t kMinFloatsPerRange = 16384;

int64_t ElementGrain(int64_t count, const kernels::ThreadPool& pool) {
  return std::max(pool.GrainFor(count), kMinFloatsPerRange);
}

void NormRows(const float* x, const float* weight, int64_t m, int64_t k,
              float eps, bool add, float* out, kernels::ThreadPool& pool,
              kernels::Isa isa) {
  const VectorKernels& run = VectorKernelsFor(isa);
  pool.ParallelFor(m, RowGrain(m, k, pool),
                   [&](int64_t begin, int64_t end, int) {
                     run.rms_norm(x + begin * k, weight, end - begin, k, eps,
                                  add, out + begin * k);
                   });
}

}  // namespace

int64_t RowGrain(int64_t m, int64_t k, const kernels::ThreadPool& pool) {
  const int64_t row = std::max<int64_t>(k, 1);
  return std::max(pool.GrainFor(m), (kMinFloatsPerRange + row - 1) / row);
}

void RmsNorm(const float* x, const float* weight, int64_t m, int64_t k,
             float eps, float* out, kernels::ThreadPool& pool,
             kernels::Isa isa) {
  NormRows(x, weight, m, k, eps, false, out, pool, isa);
}

void RmsNormAdd(const float* x, const float* weight, int64_t m, int64_t k,
                float eps, float* residual, kernels::ThreadPool& pool,
                kernels::Isa isa) {
  NormRows(x, weight, m, k, eps, true, residual, pool, isa);
}

void GeluMul(const float* gate, const float* up, int64_t count, float* out,
             kernels::ThreadPool& pool, kernels::Isa isa) {
  const VectorKernels& run = VectorKernelsFor(isa);
  pool.ParallelFor(
      count, ElementGrain(count, pool), [&](int64_t begin, int64_t end, int) {
        run.gelu_mul(gate + begin, up + begin, end - begin, out + begin);
      });
}

void SoftCap(const float* x, float cap, int64_t count, float* out,
             kernels::ThreadPool& pool, kernels::Isa isa) {
  const VectorKernels& run = VectorKernelsFor(isa);
  pool.ParallelFor(count, ElementGrain(count, pool),
                   [&](int64_t begin, int64_t end, int) {
                     run.soft_cap(x + begin, cap, end - begin, out + begin);
                   });
}

void Add(const float* a, const float* b, int64_t count, float* out,
         kernels::ThreadPool& pool, kernels::Isa isa) {
  const VectorKernels& run = VectorKernelsFor(isa);
  pool.ParallelFor(count, ElementGrain(count, pool),
                   [&](int64_t begin, int64_t end, int) {
                     run.add(a + begin, b + begin, end - begin, out + begin);
                   });
}

void Scale(const float* x, float factor, int64_t count, float* out,
           kernels::ThreadPool& pool, kernels::Isa isa) {
  const VectorKernels& run = VectorKernelsFor(isa);
  pool.ParallelFor(count, ElementGrain(count, pool),
                   [&](int64_t begin, int64_t end, int) {
                     run.scale(x + begin, factor, end - begin, out + begin);
                   });
}

}  // namespace onegrid::cpu
