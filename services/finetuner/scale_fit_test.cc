#include "services/finetuner/scale_fit.h"

#include <ATen/Parallel.h>

#include "gtest/gtest.h"
#include "services/finetuner/grid_tensor.h"

namespace onegrid::finetuner {
namespace {

// A layer whose inputs are correlated.
struct Layer {
  at::Tensor weights;
  at::Tensor hessian;
};

Layer MakeLayer() {
  at::set_num_threads(1);
  at::manual_seed(4);
  const at::Tensor x = at::mm(at::randn({600, 16}), at::randn({16, 128})) +
                       0.3 * at::randn({600, 128});
  return {at::randn({48, 128}), at::mm(x.t(), x)};
}

TEST(ScaleFitTest, NoSingleScaleCanBeMadeBetter) {
  const Layer layer = MakeLayer();
  const quant::GridMatrix nearest =
      *EncodeTensor(layer.weights, quant::kInt2G64);
  const quant::GridMatrix fitted =
      FitScales(layer.weights, nearest, layer.hessian);
  EXPECT_EQ(fitted.codes, nearest.codes);
  const double error =
      OutputErrors(layer.weights, fitted, layer.hessian).sum().item<double>();
  EXPECT_LT(error, 0.95 * OutputErrors(layer.weights, nearest, layer.hessian)
                              .sum()
                              .item<double>());
  for (const size_t i : {size_t{0}, size_t{9}, size_t{95}}) {
    for (const float factor : {0.95f, 1.05f}) {
      quant::GridMatrix moved = fitted;
      moved.scales[i] *= factor;
      EXPECT_GT(OutputErrors(layer.weights, moved, layer.hessian)
                    .sum()
                    .item<double>(),
                error);
    }
  }
  for (const float scale : fitted.scales) {
    EXPECT_TRUE(quant::IsDualExact(scale));
  }
}

TEST(ScaleFitTest, FittedScalesLoseLessThanKeptOnes) {
  const Layer layer = MakeLayer();
  const HessianFactor factor = *FactorHessian(layer.hessian);
  for (const quant::Grid* grid : {&quant::kInt2G64, &quant::kInt4G32}) {
    const quant::GridMatrix nearest = *EncodeTensor(layer.weights, *grid);
    const at::Tensor kept = OutputErrors(
        layer.weights, RoundWithFeedback(layer.weights, nearest, factor),
        layer.hessian);
    const at::Tensor fitted = OutputErrors(
        layer.weights,
        RoundWithFittedScales(layer.weights, nearest, layer.hessian, factor),
        layer.hessian);
    EXPECT_TRUE((fitted <= kept).all().item<bool>());
    EXPECT_LT(fitted.sum().item<double>(), 0.9 * kept.sum().item<double>())
        << grid->name;
  }
}

}  // namespace
}  // namespace onegrid::finetuner
