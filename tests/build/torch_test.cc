// LibTorch links, finds its libraries at run time and computes.
#include <torch/torch.h>

#include "gtest/gtest.h"

namespace onegrid {
namespace {

TEST(TorchTest, Bf16MatmulIsWithinItsRounding) {
  torch::manual_seed(1);
  const torch::Tensor a = torch::randn({64, 128});
  const torch::Tensor b = torch::randn({128, 32});
  const torch::Tensor exact = torch::matmul(a, b);
  const torch::Tensor rounded =
      torch::matmul(a.to(torch::kBFloat16), b.to(torch::kBFloat16))
          .to(torch::kFloat);
  // bf16 keeps 8 significant bits: inputs and output each lose up to 2^-8.
  const double error = (exact - rounded).norm().item<double>();
  EXPECT_LT(error, exact.norm().item<double>() / 128);
  EXPECT_GT(error, 0);
}

TEST(TorchTest, BackwardGivesTheGradientOfASquare) {
  const torch::Tensor x = torch::full({3}, 2.0, torch::requires_grad());
  (x * x).sum().backward();
  EXPECT_TRUE(torch::equal(x.grad(), torch::full({3}, 4.0)));
}

}  // namespace
}  // namespace onegrid
