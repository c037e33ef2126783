// The product of a frozen weight plus its LoRA, differentiable in its input;
// gradients of A and B are added to the adapter's own vectors.
#ifndef SERVICES_FINETUNER_LORA_LINEAR_H_
#define SERVICES_FINETUNER_LORA_LINEAR_H_

#include <ATen/ATen.h>

#include "services/finetuner/lora_adapter.h"

namespace onegrid::finetuner {

// x [T, in], weight [out, in], both of the compute type -> [T, out].
// `group` may be nullptr (no LoRA); it must outlive the backward pass.
// dropout_mask: [T, in] of the compute type, 0 or 1 / (1 - p), multiplies the
// input of A only; undefined for no dropout.
at::Tensor LoraLinear(const at::Tensor& x, const at::Tensor& weight,
                      const LoraGroup* group, const at::Tensor& dropout_mask);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_LORA_LINEAR_H_
