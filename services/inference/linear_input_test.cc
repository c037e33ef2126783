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

TEST_P(LinearInputTest, NormsInCodesOnlyWhereAllWeightsTakeThem) {
  std::vector<float> residual = kernels::RandomFloats(kM * kK, 5);
  const std::vector<float> before = residual;
  const std::vector<float> weight = kernels::RandomFloats(kK, 6);
  const auto encoded = quant::EncodeMatrix(kernels::RandomFloats(kN * kK, 7),
                                           kN, kK, quant::kInt4G32);
  ASSERT_TRUE(encoded.ok()) << encoded.status();
  const auto codes = cpu::PackedLinear::FromBlocks(
      quant::BlockType(quant::kInt4G32), *quant::PackBlocks(*encoded), kN, kK,
      pool_);
  ASSERT_TRUE(codes.ok()) << codes.status();
  const auto floats = cpu::PackedLinear::FromBlocks(
      quant::GgmlType::kBF16, std::vector<uint8_t>(2 * kN * kK), kN, kK, pool_);
  ASSERT_TRUE(floats.ok()) << floats.status();
  const cpu::NormStep step = {
      .residual = residual.data(), .weight = weight.data(), .eps = 1e-6f};
  LinearInput input(numerics_, pool_);
  EXPECT_FALSE(input.SetNormed(step, kM, kK, cpu::CodeBits::k8,
                               {&*codes, &*floats, nullptr}));
  Numerics in_floats = numerics_;
  in_floats.activations = Precision::kF32;
  EXPECT_FALSE(LinearInput(in_floats, pool_)
                   .SetNormed(step, kM, kK, cpu::CodeBits::k8, {&*codes}));
  ASSERT_TRUE(
      input.SetNormed(step, kM, kK, cpu::CodeBits::k8, {nullptr, &*codes}));
  EXPECT_EQ(residual, before);
  std::vector<float> normed(kM * kK), expected(kM * kN), out(kM * kN);
  cpu::NormRows(step, kM, kK, normed.data(), pool_, GetParam());
  input.Multiply(*codes, out.data());
  input.Set(normed.data(), kM, kK, cpu::CodeBits::k8);
  input.Multiply(*codes, expected.data());
  EXPECT_EQ(out, expected);
}

INSTANTIATE_TEST_SUITE_P(Isas, LinearInputTest,
                         testing::ValuesIn(kernels::kAllIsas),
                         [](const auto& info) {
                           return kernels::IsaName(info.param);
                         });

}  // namespace
}  // namespace onegrid::inference
