// Rounding of a weight matrix onto an existing grid with error feedback.
//
// Columns are rounded in order; the error of each is spread over the columns
// that follow, weighted by the inverse Hessian of the layer's inputs (GPTQ), so
// that what one code cannot express the next ones make up for. Scales are kept.
#ifndef SERVICES_FINETUNER_GPTQ_H_
#define SERVICES_FINETUNER_GPTQ_H_

#include <ATen/ATen.h>

#include "absl/status/statusor.h"
#include "kernels/quant/int4_g32.h"

namespace onegrid::finetuner {

// Upper Cholesky factor U of (H + damping * mean(diag H) * I)^-1, [in, in]
// float32, from H = X^T X [in, in] float32. Inputs that never fire get a
// diagonal of one. FailedPrecondition (HESSIAN_NOT_POSITIVE): H is not
// positive definite even so.
absl::StatusOr<at::Tensor> FactorHessian(const at::Tensor& hessian,
                                         double damping = 0.01);

// Codes for `target` [out, in] float32 on the scales of `grid`, given
// FactorHessian's U. The rounding of each value is quant::RoundToCode.
quant::Int4Matrix RoundWithFeedback(const at::Tensor& target,
                                    const quant::Int4Matrix& grid,
                                    const at::Tensor& factor);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_GPTQ_H_
