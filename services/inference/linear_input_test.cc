// Goal: what a trainer simulates is what is served.
// Method: products of LinearInput against the fake-quantized input times the
// dequantized weights, in double.
#include "services/inference/linear_input.h"

#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/quant/grid_blocks.h"
#include "kernels/quant/int8_activations.h"

namespace onegrid::inference {
namespace {

constexpr int64_t kM = 14, kN = 20, kK = 96;

std::vector<float> RandomFloats(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(count));
  for (float& value : x) value = normal(random);
  return x;
}

class LinearInputTest : public testing::TestWithParam<kernels::Isa> {
 protected:
  void SetUp() override {
    if (!kernels::IsaSupported(GetParam())) GTEST_SKIP() << "no such processor";
    numerics_.isa = GetParam();
  }

  // Expects x served with `terms` to give `fake` times w.
  template <typename Packed>
  void ExpectProducts(const std::vector<float>& x,
                      const std::vector<float>& fake, LinearInput::Terms terms,
                      const quant::GridMatrix& w, const Packed& packed) {
    LinearInput input(numerics_, pool_);
    input.Set(x.data(), kM, kK, terms);
    std::vector<float> out(kM * kN);
    input.Multiply(packed, out.data());
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
        // Served: 2 products and 3 sums of groups, the sum of 2 terms;
        // simulated: one rounding of each weight and of each value and term.
        EXPECT_NEAR(out[m * kN + n], sum, 10 * 0x1p-24 * size)
            << m << " " << n << " " << w.grid->name << " " << terms;
      }
    }
  }

  Numerics numerics_;
  kernels::ThreadPool pool_{2};
};

TEST_P(LinearInputTest, ServesWhatFakeQuantizationSays) {
  const std::vector<float> x = RandomFloats(kM * kK, 1);
  std::vector<float> one = x, two = x;
  quant::FakeQuantizeOneTerm(absl::MakeSpan(one));
  quant::FakeQuantizeTwoTerms(absl::MakeSpan(two));
  ASSERT_NE(one, two);
  const std::vector<float> w = RandomFloats(kN * kK, 2);
  const auto w4 = quant::EncodeMatrix(w, kN, kK, quant::kInt4G32);
  const auto w8 = quant::EncodeMatrix(w, kN, kK, quant::kInt8G32);
  ASSERT_TRUE(w4.ok() && w8.ok());
  const auto packed4 =
      cpu::PackedInt4Linear::FromQ4_0(*quant::PackBlocks(*w4), kN, kK, pool_);
  const auto packed8 =
      cpu::PackedInt8Linear::FromQ8_0(*quant::PackBlocks(*w8), kN, kK, pool_);
  ExpectProducts(x, one, LinearInput::kOneTerm, *w4, *packed4);
  ExpectProducts(x, two, LinearInput::kTwoTerms, *w4, *packed4);
  ExpectProducts(x, one, LinearInput::kOneTerm, *w8, *packed8);
  ExpectProducts(x, two, LinearInput::kTwoTerms, *w8, *packed8);
}

INSTANTIATE_TEST_SUITE_P(Isas, LinearInputTest,
                         testing::Values(kernels::Isa::kReference,
                                         kernels::Isa::kAvx2,
                                         kernels::Isa::kAvx512Vnni),
                         [](const auto& info) {
                           return kernels::IsaName(info.param);
                         });

}  // namespace
}  // namespace onegrid::inference
