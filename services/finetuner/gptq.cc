#include "services/finetuner/gptq.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <tuple>

#include "services/common/error_info.h"

namespace onegrid::finetuner {
namespace {

// Columns rounded before their errors reach the columns behind the block.
constexpr int64_t kBlock = 128;

absl::Status NotPositive() {
  return common::MakeError(
      absl::StatusCode::kFailedPrecondition, "HESSIAN_NOT_POSITIVE",
      "the inputs of a layer are not finite or degenerate; more fold_examples "
      "may help");
}

at::Tensor IndexOf(const std::vector<int64_t>& order) {
  return at::tensor(order, at::kLong);
}

// Rounds columns [start, start + width) of `weights` [out, in], whose columns
// are in `order`, feeding errors forward within the block only. errors [out,
// width] are the scaled errors.
void RoundBlock(const at::Tensor& weights, const HessianFactor& factor,
                int64_t start, int64_t width, quant::GridMatrix* result,
                const at::Tensor& errors) {
  const int64_t in = weights.size(1);
  float* w = weights.mutable_data_ptr<float>();
  float* e = errors.mutable_data_ptr<float>();
  const float* u = factor.upper.const_data_ptr<float>();
  const quant::Grid& grid = *result->grid;
  at::parallel_for(0, weights.size(0), 8, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* values = w + row * in;
      for (int64_t j = start; j < start + width; ++j) {
        const int64_t place = row * in + factor.order[j];
        const float scale = result->scales[place / grid.group];
        const int8_t code = quant::RoundToCode(values[j], scale, grid);
        result->codes[place] = code;
        const float error =
            (values[j] - static_cast<float>(code) * scale) / u[j * in + j];
        e[row * width + j - start] = error;
        const float* spread = u + j * in;
        for (int64_t k = j + 1; k < start + width; ++k) {
          values[k] -= error * spread[k];
        }
      }
    }
  });
}

}  // namespace

absl::StatusOr<HessianFactor> FactorHessian(const at::Tensor& hessian,
                                            double damping) {
  HessianFactor factor;
  at::Tensor h = hessian.to(at::kDouble);
  at::Tensor diagonal = h.diagonal();
  diagonal.masked_fill_(diagonal == 0, 1.0);
  const at::Tensor order = std::get<1>(
      at::sort(diagonal, /*stable=*/true, /*dim=*/0, /*descending=*/true));
  factor.order.assign(order.const_data_ptr<int64_t>(),
                      order.const_data_ptr<int64_t>() + order.numel());
  diagonal.add_(diagonal.mean() * damping);
  const auto [lower, info] = at::linalg_cholesky_ex(h);
  if (info.item<int>() != 0) return NotPositive();
  const at::Tensor inverse = at::cholesky_inverse(lower);
  const auto [upper, info2] = at::linalg_cholesky_ex(
      inverse.index_select(0, order).index_select(1, order), /*upper=*/true);
  if (info2.item<int>() != 0) return NotPositive();
  factor.upper = upper.to(at::kFloat).contiguous();
  return factor;
}

quant::GridMatrix RoundWithFeedback(const at::Tensor& target,
                                    const quant::GridMatrix& grid,
                                    const HessianFactor& factor) {
  quant::GridMatrix result = grid;
  // A copy, which the feedback changes.
  at::Tensor weights = target.index_select(1, IndexOf(factor.order));
  const int64_t out = weights.size(0), in = weights.size(1);
  for (int64_t start = 0; start < in; start += kBlock) {
    const int64_t width = std::min(kBlock, in - start);
    const int64_t stop = start + width;
    const at::Tensor errors = at::empty({out, width}, at::kFloat);
    RoundBlock(weights, factor, start, width, &result, errors);
    if (stop == in) break;
    weights.narrow(1, stop, in - stop)
        .sub_(at::mm(
            errors,
            factor.upper.narrow(0, start, width).narrow(1, stop, in - stop)));
  }
  return result;
}

}  // namespace onegrid::finetuner
