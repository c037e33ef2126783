#include "services/finetuner/transformer_ops.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

#include "absl/types/span.h"
#include "kernels/quant/int8_activations.h"
#include "services/finetuner/row_ops.h"
#include "services/finetuner/rows.h"

namespace onegrid::finetuner {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// Rows handed to a thread at once: enough to hide the cost of waking it.
constexpr int64_t kGrain = 32;

// Gradient of a norm whose input is `x`; `dy` [T, n] any type.
at::Tensor NormGrad(const at::Tensor& x, const at::Tensor& weight, double eps,
                    const at::Tensor& dy) {
  const int64_t n = x.size(1);
  at::Tensor dx = at::empty(x.sizes(), x.options());
  const Rows x_rows(x), dy_rows(dy), dx_rows(dx);
  const float* w = weight.const_data_ptr<float>();
  at::parallel_for(0, x.size(0), kGrain, [&](int64_t begin, int64_t end) {
    std::vector<float> a(n), b(n), c(n);
    for (int64_t t = begin; t < end; ++t) {
      const float* in = x_rows.Load(t, 0, n, a.data());
      const float r = RmsNormRow(in, w, n, static_cast<float>(eps), c.data());
      RmsNormGradRow(in, w, dy_rows.Load(t, 0, n, b.data()), r, n, c.data());
      dx_rows.Store(t, 0, n, c.data());
    }
  });
  return dx;
}

class RmsNormFunction : public Function<RmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const at::Tensor& weight, double eps,
                            int64_t dtype) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["eps"] = eps;
    const int64_t n = x.size(1);
    at::Tensor y = at::empty(
        x.sizes(), x.options().dtype(static_cast<at::ScalarType>(dtype)));
    const Rows x_rows(x), y_rows(y);
    const float* w = weight.const_data_ptr<float>();
    at::parallel_for(0, x.size(0), kGrain, [&](int64_t begin, int64_t end) {
      std::vector<float> a(n), b(n);
      for (int64_t t = begin; t < end; ++t) {
        const float* in = x_rows.Load(t, 0, n, a.data());
        RmsNormRow(in, w, n, static_cast<float>(eps), b.data());
        y_rows.Store(t, 0, n, b.data());
      }
    });
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    return {NormGrad(saved[0], saved[1], ctx->saved_data["eps"].toDouble(),
                     grads[0].contiguous()),
            at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

class AddRmsNormFunction : public Function<AddRmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const at::Tensor& branch, const at::Tensor& weight,
                            double eps) {
    ctx->save_for_backward({branch, weight});
    ctx->saved_data["eps"] = eps;
    const int64_t n = x.size(1);
    at::Tensor y = at::empty(x.sizes(), x.options());
    const Rows x_rows(x), branch_rows(branch), y_rows(y);
    const float* w = weight.const_data_ptr<float>();
    at::parallel_for(0, x.size(0), kGrain, [&](int64_t begin, int64_t end) {
      std::vector<float> a(n), b(n), scratch(n);
      for (int64_t t = begin; t < end; ++t) {
        RmsNormRow(branch_rows.Load(t, 0, n, a.data()), w, n,
                   static_cast<float>(eps), b.data());
        const float* in = x_rows.Load(t, 0, n, scratch.data());
        for (int64_t i = 0; i < n; ++i) b[i] += in[i];
        y_rows.Store(t, 0, n, b.data());
      }
    });
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor dy = grads[0].contiguous();
    return {dy,
            NormGrad(saved[0], saved[1], ctx->saved_data["eps"].toDouble(), dy),
            at::Tensor(), at::Tensor()};
  }
};

class GeluMulFunction : public Function<GeluMulFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_up) {
    ctx->save_for_backward({gate_up});
    const int64_t n = gate_up.size(1) / 2;
    at::Tensor y = at::empty({gate_up.size(0), n}, gate_up.options());
    const Rows in(gate_up), out(y);
    at::parallel_for(0, y.size(0), kGrain, [&](int64_t begin, int64_t end) {
      std::vector<float> a(n), b(n), c(n);
      for (int64_t t = begin; t < end; ++t) {
        GeluMulRow(in.Load(t, 0, n, a.data()), in.Load(t, n, n, b.data()), n,
                   c.data());
        out.Store(t, 0, n, c.data());
      }
    });
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor gate_up = ctx->get_saved_variables()[0];
    const at::Tensor dy = grads[0].contiguous();
    const int64_t n = dy.size(1);
    at::Tensor dx = at::empty(gate_up.sizes(), gate_up.options());
    const Rows in(gate_up), dy_rows(dy), out(dx);
    at::parallel_for(0, dy.size(0), kGrain, [&](int64_t begin, int64_t end) {
      std::vector<float> a(n), b(n), c(n), dg(n), du(n);
      for (int64_t t = begin; t < end; ++t) {
        GeluMulGradRow(in.Load(t, 0, n, a.data()), in.Load(t, n, n, b.data()),
                       dy_rows.Load(t, 0, n, c.data()), n, dg.data(),
                       du.data());
        out.Store(t, 0, n, dg.data());
        out.Store(t, n, n, du.data());
      }
    });
    return {dx};
  }
};

class FakeQuantizeFunction : public Function<FakeQuantizeFunction> {
 public:
  static at::Tensor forward(AutogradContext*, const at::Tensor& x, bool int16) {
    const int64_t n = x.size(1);
    at::Tensor y = at::empty(x.sizes(), x.options());
    const Rows in(x), out(y);
    at::parallel_for(0, x.size(0), kGrain, [&](int64_t begin, int64_t end) {
      std::vector<float> a(n);
      for (int64_t t = begin; t < end; ++t) {
        const float* row = in.Load(t, 0, n, a.data());
        if (row != a.data()) std::copy(row, row + n, a.data());
        if (int16) {
          quant::FakeQuantizeInt16(absl::MakeSpan(a));
        } else {
          quant::FakeQuantizeInt8(absl::MakeSpan(a));
        }
        out.Store(t, 0, n, a.data());
      }
    });
    return y;
  }

  static variable_list backward(AutogradContext*, variable_list grads) {
    return {grads[0], at::Tensor()};
  }
};

}  // namespace

at::Tensor FakeQuantize(const at::Tensor& x, bool int16) {
  return FakeQuantizeFunction::apply(x, int16);
}

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps,
                   at::ScalarType dtype) {
  return RmsNormFunction::apply(x, weight, eps, static_cast<int64_t>(dtype));
}

at::Tensor AddRmsNorm(const at::Tensor& x, const at::Tensor& branch,
                      const at::Tensor& weight, double eps) {
  return AddRmsNormFunction::apply(x, branch, weight, eps);
}

at::Tensor GeluMul(const at::Tensor& gate_up) {
  return GeluMulFunction::apply(gate_up);
}

}  // namespace onegrid::finetuner
