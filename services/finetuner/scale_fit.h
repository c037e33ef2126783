// Rounding with error feedback where the scales are free too: after a sweep the
// scales are fitted to the codes it gave, by the output error on the layer's
// inputs, and the sweep is repeated on them.
#ifndef SERVICES_FINETUNER_SCALE_FIT_H_
#define SERVICES_FINETUNER_SCALE_FIT_H_

#include <ATen/ATen.h>

#include "kernels/quant/grid.h"
#include "services/finetuner/gptq.h"

namespace onegrid::finetuner {

// The squared output error of each row, (w - q) H (w - q)^T: [out] float32.
at::Tensor OutputErrors(const at::Tensor& target,
                        const quant::GridMatrix& matrix,
                        const at::Tensor& hessian);

// Scales with the least summed output error for the codes of `matrix`, all
// groups of a row at once, snapped; a group whose best scale is not positive
// keeps its own. target [out, in] float32, hessian [in, in] float32.
quant::GridMatrix FitScales(const at::Tensor& target,
                            const quant::GridMatrix& matrix,
                            const at::Tensor& hessian);

// RoundWithFeedback onto the scales of `nearest`, then `sweeps` times FitScales
// and RoundWithFeedback. Each row is the best of its versions. `factor` is
// FactorHessian(hessian).
quant::GridMatrix RoundWithFittedScales(const at::Tensor& target,
                                        const quant::GridMatrix& nearest,
                                        const at::Tensor& hessian,
                                        const HessianFactor& factor,
                                        int sweeps = 2);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_SCALE_FIT_H_
