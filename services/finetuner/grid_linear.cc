#include "services/finetuner/grid_linear.h"

#include <torch/csrc/autograd/custom_function.h>

namespace onegrid::finetuner {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

class GridLinearFunction : public Function<GridLinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const at::Tensor& weight, int64_t first_linear,
                            WeightGradientSink* sink) {
    ctx->saved_data["first_linear"] = first_linear;
    ctx->saved_data["sink"] = reinterpret_cast<int64_t>(sink);
    ctx->save_for_backward({x, weight});
    return at::mm(x, weight.t());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto* sink =
        reinterpret_cast<WeightGradientSink*>(ctx->saved_data["sink"].toInt());
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor dy = grads[0].contiguous();
    sink->Add(ctx->saved_data["first_linear"].toInt(),
              at::mm(dy.t(), saved[0]));
    return {at::mm(dy, saved[1]), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor GridLinear(const at::Tensor& x, const at::Tensor& weight,
                      int64_t first_linear, WeightGradientSink* sink) {
  return GridLinearFunction::apply(x, weight, first_linear, sink);
}

}  // namespace onegrid::finetuner
