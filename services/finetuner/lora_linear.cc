#include "services/finetuner/lora_linear.h"

#include <torch/csrc/autograd/custom_function.h>

#include <cstdint>
#include <optional>

namespace onegrid::finetuner {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// Adds the gradients of A and B: hidden [T, ranks] = A x, d_hidden its gradient
// (scales included), x the input of A.
void AccumulateGradients(const LoraGroup& group, const at::Tensor& x,
                         const at::Tensor& hidden, const at::Tensor& d_hidden,
                         const at::Tensor& dy) {
  group.grad_a.add_(at::mm(d_hidden.t(), x));
  const at::Tensor d_b = at::mm(dy.t(), hidden);  // [group out, ranks]
  int64_t rank_offset = 0;
  for (const LoraLinearParameters& member : group.members) {
    const int64_t out = member.b.size(0), rank = member.b.size(1);
    member.grad_b.add_(d_b.narrow(0, member.out_offset, out)
                           .narrow(1, rank_offset, rank)
                           .to(at::kFloat),
                       member.scale);
    rank_offset += rank;
  }
}

class LoraLinearFunction : public Function<LoraLinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const at::Tensor& weight, const LoraGroup* group,
                            const std::optional<at::Tensor>& dropout_mask) {
    const at::Tensor mask = dropout_mask.value_or(at::Tensor());
    ctx->saved_data["group"] = reinterpret_cast<int64_t>(group);
    at::Tensor y = at::mm(x, weight.t());
    if (group == nullptr) {
      ctx->save_for_backward({x, weight});
      return y;
    }
    const at::Tensor input = mask.defined() ? x * mask : x;
    const at::Tensor hidden = at::mm(input, group->a_compute.t());
    y.addmm_(hidden, group->b_compute.t());
    ctx->save_for_backward(
        {input, weight, hidden, mask, group->a_compute, group->b_compute});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto* group =
        reinterpret_cast<const LoraGroup*>(ctx->saved_data["group"].toInt());
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor dx = at::mm(dy, saved[1]);
    if (group != nullptr) {
      const at::Tensor &mask = saved[3], &a = saved[4], &b = saved[5];
      const at::Tensor d_hidden = at::mm(dy, b);
      AccumulateGradients(*group, saved[0], saved[2], d_hidden, dy);
      if (mask.defined()) {
        dx.addcmul_(at::mm(d_hidden, a), mask);
      } else {
        dx.addmm_(d_hidden, a);
      }
    }
    return {dx, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor LoraLinear(const at::Tensor& x, const at::Tensor& weight,
                      const LoraGroup* group, const at::Tensor& dropout_mask) {
  // An undefined tensor cannot be an argument of a function; none can.
  return LoraLinearFunction::apply(
      x, weight, group,
      dropout_mask.defined() ? std::make_optional(dropout_mask) : std::nullopt);
}

}  // namespace onegrid::finetuner
