// Differentiable element-wise parts of a Gemma layer, each one pass over its
// rows forward and one backward. T is the number of tokens. Norm weights are
// the GGUF's (they multiply plainly) and are frozen: no gradient.
#ifndef SERVICES_FINETUNER_TRANSFORMER_OPS_H_
#define SERVICES_FINETUNER_TRANSFORMER_OPS_H_

#include <ATen/ATen.h>

namespace onegrid::finetuner {

// x [T, n] float32, weight [n] float32 -> [T, n] of `dtype`.
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps,
                   at::ScalarType dtype);

// The end of a block: x + norm(branch) * weight. x [T, n] float32, branch
// [T, n] of any type -> [T, n] float32.
at::Tensor AddRmsNorm(const at::Tensor& x, const at::Tensor& branch,
                      const at::Tensor& weight, double eps);

// The rows x [T, n] rounded as the inference service rounds the input of a
// product: groups of 32 in int8 or int16 (kernels/quant/
// int8_activations.h). The gradient passes straight through.
at::Tensor FakeQuantize(const at::Tensor& x, bool int16);

// gate_up [T, 2 n] -> gelu_tanh(first half) * second half, [T, n].
at::Tensor GeluMul(const at::Tensor& gate_up);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_TRANSFORMER_OPS_H_
