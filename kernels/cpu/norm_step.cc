#include "kernels/cpu/norm_step.h"

#include <algorithm>

#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/vector_kernels.h"

namespace onegrid::cpu {
namespace {

// out [rows][k] = the norms of some rows.
void NormSome(const NormStep& step, const VectorKernels& run, int64_t row,
              int64_t rows, int64_t k, float* out) {
  float* residual = step.residual + row * k;
  if (step.branch != nullptr) {
    run.rms_norm(step.branch + row * k, step.branch_weight, rows, k, step.eps,
                 /*add=*/true, residual);
  }
  run.rms_norm(residual, step.weight, rows, k, step.eps, /*add=*/false, out);
}

}  // namespace

void NormRows(const NormStep& step, int64_t m, int64_t k, float* out,
              kernels::ThreadPool& pool, kernels::Isa isa) {
  const VectorKernels& run = VectorKernelsFor(isa);
  pool.ParallelFor(m, RowGrain(m, k, pool),
                   [&](int64_t begin, int64_t end, int) {
                     for (int64_t row = begin; row < end;) {
                       const int64_t rows = std::min(kRowsAtOnce, end - row);
                       NormSome(step, run, row, rows, k, out + row * k);
                       row += rows;
                     }
                   });
}

void QuantizeNormedRows(const NormStep& step, int64_t m, int64_t k,
                        CodeBits bits, QuantizedActivations* out,
                        kernels::ThreadPool& pool, kernels::Isa isa) {
  const VectorKernels& run = VectorKernelsFor(isa);
  const auto make = [&](int64_t row, int64_t rows, float* room) {
    NormSome(step, run, row, rows, k, room);
  };
  QuantizeRows(m, k, bits, make, out, pool, isa);
}

}  // namespace onegrid::cpu
