#include "services/finetuner/scale_fit.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <tuple>

namespace onegrid::finetuner {
namespace {

// Of the mean diagonal: keeps the equations of groups that hardly matter
// solvable.
constexpr double kRidge = 1e-4;

at::Tensor Values(const quant::GridMatrix& matrix) {
  const int64_t groups = matrix.cols / matrix.grid->group;
  const at::Tensor codes =
      at::from_blob(const_cast<int8_t*>(matrix.codes.data()),
                    {matrix.rows, groups, matrix.grid->group}, at::kChar)
          .to(at::kFloat);
  const at::Tensor scales =
      at::from_blob(const_cast<float*>(matrix.scales.data()),
                    {matrix.rows, groups, 1}, at::kFloat);
  return (codes * scales).view({matrix.rows, matrix.cols});
}

// Row `row` of `from` replaces that of `to`.
void CopyRow(const quant::GridMatrix& from, int64_t row,
             quant::GridMatrix* to) {
  const int64_t groups = from.cols / from.grid->group;
  std::copy_n(from.codes.begin() + row * from.cols, from.cols,
              to->codes.begin() + row * from.cols);
  std::copy_n(from.scales.begin() + row * groups, groups,
              to->scales.begin() + row * groups);
}

}  // namespace

at::Tensor OutputErrors(const at::Tensor& target,
                        const quant::GridMatrix& matrix,
                        const at::Tensor& hessian) {
  const at::Tensor miss = target - Values(matrix);
  return (at::mm(miss, hessian) * miss).sum(1);
}

quant::GridMatrix FitScales(const at::Tensor& target,
                            const quant::GridMatrix& matrix,
                            const at::Tensor& hessian) {
  const int64_t rows = matrix.rows, group = matrix.grid->group;
  const int64_t groups = matrix.cols / group;
  const at::Tensor codes =
      at::from_blob(const_cast<int8_t*>(matrix.codes.data()),
                    {rows, matrix.cols}, at::kChar)
          .to(at::kFloat);
  const auto by_group = [&](const at::Tensor& x) {
    return x.view({rows, groups, group}).sum(2).to(at::kDouble);
  };
  // With q = sum over groups of s_g c_g, the least error is where
  // sum_h (c_g H c_h) s_h = c_g H w for every g.
  at::Tensor normal = at::empty({rows, groups, groups}, at::kDouble);
  for (int64_t g = 0; g < groups; ++g) {
    const at::Tensor part = at::mm(codes.narrow(1, g * group, group),
                                   hessian.narrow(0, g * group, group));
    normal.select(1, g).copy_(by_group(part * codes));
  }
  const at::Tensor right =
      by_group(at::mm(target, hessian) * codes).unsqueeze(2);
  at::Tensor diagonal = normal.diagonal(0, 1, 2);
  diagonal.add_((diagonal.mean(1, /*keepdim=*/true) * kRidge).clamp_min(1e-30));
  const at::Tensor fitted = std::get<0>(at::linalg_solve_ex(normal, right))
                                .to(at::kFloat)
                                .contiguous();
  quant::GridMatrix result = matrix;
  const float* scales = fitted.const_data_ptr<float>();
  for (size_t i = 0; i < result.scales.size(); ++i) {
    // Not so for a NaN.
    if (scales[i] > 0) result.scales[i] = quant::SnapScale(scales[i]);
  }
  return result;
}

quant::GridMatrix RoundWithFittedScales(const at::Tensor& target,
                                        const quant::GridMatrix& nearest,
                                        const at::Tensor& hessian,
                                        const HessianFactor& factor,
                                        int sweeps) {
  quant::GridMatrix best = RoundWithFeedback(target, nearest, factor);
  at::Tensor best_errors = OutputErrors(target, best, hessian);
  float* least = best_errors.mutable_data_ptr<float>();
  for (int sweep = 0; sweep < sweeps; ++sweep) {
    const quant::GridMatrix next =
        RoundWithFeedback(target, FitScales(target, best, hessian), factor);
    const at::Tensor errors = OutputErrors(target, next, hessian);
    const float* found = errors.const_data_ptr<float>();
    for (int64_t row = 0; row < best.rows; ++row) {
      if (!(found[row] < least[row])) continue;
      least[row] = found[row];
      CopyRow(next, row, &best);
    }
  }
  return best;
}

}  // namespace onegrid::finetuner
