// The product of a weight that is itself under training: the gradient of the
// weight goes to a sink as soon as it is known, so that no more than one
// group's is held.
#ifndef SERVICES_FINETUNER_GRID_LINEAR_H_
#define SERVICES_FINETUNER_GRID_LINEAR_H_

#include <ATen/ATen.h>

#include <cstdint>

namespace onegrid::finetuner {

// Takes weight gradients during the backward pass, in the thread that runs it.
class WeightGradientSink {
 public:
  virtual ~WeightGradientSink() = default;
  // dw [group out, in] of the compute type, to be added: that of the linears
  // from first_linear on, one below the other.
  virtual void Add(int64_t first_linear, const at::Tensor& dw) = 0;
};

// x [T, in], weight [out, in], both of the compute type -> [T, out],
// differentiable in x. `sink` must outlive the backward pass.
at::Tensor GridLinear(const at::Tensor& x, const at::Tensor& weight,
                      int64_t first_linear, WeightGradientSink* sink);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_GRID_LINEAR_H_
