// Goal: what a trainer simulates is what is served.
// Method: products of LinearInput against the fake-quantized input times the
// dequantized weights, in double.
#include "services/inference/linear_input.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/random_floats.h"
#include "kernels/quant/grid_blocks.h"
#include "kernels/quant/int8_activations.h"

namespace onegrid::inference {
namespace {

constexpr int64_t kM = 14, kN = 20, kK = 128;

class LinearInputTest : public testing::TestWithParam<kernels::Isa> {
 protected:
  void SetUp() override {
    if (!kernels::IsaSupported(GetParam())) GTEST_SKIP() << "no such processor";
    numerics_.isa = GetParam();
  }

  // Expects x served with `terms` to give `fake` times w.
  void ExpectProducts(const std::vector<float>& x,
                      const std::vector<float>& fake, cpu::CodeBits bits,
                      const quant::GridMatrix& w) {
    const auto packed = cpu::PackedLinear::FromBlocks(
        quant::BlockType(*w.grid), *quant::PackBlocks(w), kN, kK, pool_);
    ASSERT_TRUE(packed.ok()) << packed.status();
    LinearInput input(numerics_, pool_);
    input.Set(x.data(), kM, kK, bits);
    std::vector<float> out(kM * kN);
    input.Multiply(*packed, out.data());
    std::vector<float> weights(kN * kK);
    quant::DequantizeMatrix(w, absl::MakeSpan(weights));
    for (int64_t m = 0; m < kM; ++m) {
      for (int64_t n = 0; n < kN; ++n) {
        double sum = 0, size = 0;
        for (int64_t i = 0; i < kK; ++i) {
          const double term = double{fake[m * kK + i]} * weights[n * kK + i];
          sum += term;
          size += std::fabs(term);
        }
        // Served: an integer and 2 products made floats, 4 sums of groups;
        // simulated: one rounding of each weight and of each value.
        EXPECT_NEAR(out[m * kN + n], sum, 10 * 0x1p-24 * size)
            << m << " " << n << " " << w.grid->name << " "
            << static_cast<int>(bits);
      }
    }
  }

  Numerics numerics_;
  kernels::ThreadPool pool_{2};
};

TEST_P(LinearInputTest, ServesWhatFakeQuantizationSays) {
  const std::vector<float> x = kernels::RandomFloats(kM * kK, 1);
  std::vector<float> one = x, two = x;
  quant::FakeQuantizeInt8(absl::MakeSpan(one));
  quant::FakeQuantizeInt16(absl::MakeSpan(two));
  ASSERT_NE(one, two);
  const std::vector<float> w = kernels::RandomFloats(kN * kK, 2);
  for (const quant::Grid* grid :
       {&quant::kInt2G64, &quant::kInt4G32, &quant::kInt8G32}) {
    const auto encoded = quant::EncodeMatrix(w, kN, kK, *grid);
    ASSERT_TRUE(encoded.ok()) << encoded.status();
    ExpectProducts(x, one, cpu::CodeBits::k8, *encoded);
    ExpectProducts(x, two, cpu::CodeBits::k16, *encoded);
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, LinearInputTest,
                         testing::ValuesIn(kernels::kAllIsas),
                         [](const auto& info) {
                           return kernels::IsaName(info.param);
                         });

}  // namespace
}  // namespace onegrid::inference
