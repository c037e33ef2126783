#include "kernels/cpu/norm_step.h"

#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/vector_kernels.h"

namespace onegrid::cpu {
namespace {

// out [k] = the norm of a row.
void NormRow(const NormStep& step, const VectorKernels& run, int64_t row,
             int64_t k, float* out) {
  float* residual = step.residual + row * k;
  if (step.branch != nullptr) {
    run.rms_norm(step.branch + row * k, step.branch_weight, k, step.eps,
                 /*add=*/true, residual);
  }
  run.rms_norm(residual, step.weight, k, step.eps, /*add=*/false, out);
}

}  // namespace

void NormRows(const NormStep& step, int64_t m, int64_t k, float* out,
              kernels::ThreadPool& pool, kernels::Isa isa) {
  const VectorKernels& run = VectorKernelsFor(isa);
  pool.ParallelFor(m, RowGrain(m, k, pool),
                   [&](int64_t begin, int64_t end, int) {
                     for (int64_t row = begin; row < end; ++row) {
                       NormRow(step, run, row, k, out + row * k);
                     }
                   });
}

void QuantizeNormedRows(const NormStep& step, int64_t m, int64_t k,
                        CodeBits bits, QuantizedActivations* out,
                        kernels::ThreadPool& pool, kernels::Isa isa) {
  const VectorKernels& run = VectorKernelsFor(isa);
  const auto make = [&](int64_t row, float* room) -> const float* {
    NormRow(step, run, row, k, room);
    return room;
  };
  QuantizeRows(m, k, bits, make, out, pool, isa);
}

}  // namespace onegrid::cpu
