// Rounding of a weight matrix onto an existing grid with error feedback.
//
// Columns are rounded one by one, those with the strongest inputs first; the
// error of each is spread over the columns still to come, weighted by the
// inverse Hessian of the layer's inputs (GPTQ), so that what one code cannot
// express the next ones make up for. Scales are kept.
#ifndef SERVICES_FINETUNER_GPTQ_H_
#define SERVICES_FINETUNER_GPTQ_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/quant/grid.h"

namespace onegrid::finetuner {

// What is needed of the damped Hessian H = X^T X + damping * mean(diag) * I.
struct HessianFactor {
  // order[j] is the j-th column to be rounded.
  std::vector<int64_t> order;
  // Upper Cholesky factor of H^-1 with rows and columns in that order, [in, in]
  // float32.
  at::Tensor upper;
};

// hessian: X^T X [in, in] float32. Inputs that never fire get a diagonal of
// one. FailedPrecondition (HESSIAN_NOT_POSITIVE): not positive definite even
// so.
absl::StatusOr<HessianFactor> FactorHessian(const at::Tensor& hessian,
                                            double damping = 0.01);

// Codes for `target` [out, in] float32 on the scales of `grid`. The rounding of
// each value is quant::RoundToCode.
quant::GridMatrix RoundWithFeedback(const at::Tensor& target,
                                    const quant::GridMatrix& grid,
                                    const HessianFactor& factor);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_GPTQ_H_
