#include "services/finetuner/row_ops.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace onegrid::finetuner {
namespace {

// Lengths around the widths of vectors, and none.
constexpr int64_t kLengths[] = {1, 2, 7, 15, 16, 17, 31, 33, 63, 129, 1023};

std::vector<float> Random(int64_t n, uint32_t seed, float spread = 2.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = normal(random);
  return values;
}

double Gelu(double x) {
  return 0.5 * x *
         (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

TEST(RowOpsTest, Bf16RoundsToNearestEven) {
  const std::vector<float> values = {1.0f, 1.00390625f, 1.01171875f, -3.1415f,
                                     0.0f};
  std::vector<uint16_t> bits(values.size());
  std::vector<float> back(values.size());
  StoreBf16Row(values.data(), 5, bits.data());
  LoadBf16Row(bits.data(), 5, back.data());
  // 1 + 2^-8 lies between 1 and 1 + 2^-7: to even is down; 1 + 3 * 2^-8 is up.
  EXPECT_EQ(back, (std::vector<float>{1.0f, 1.0f, 1.015625f, -3.140625f, 0}));
}

TEST(RowOpsTest, RmsNormAndItsGradientMatchTheDefinition) {
  for (const int64_t n : kLengths) {
    const std::vector<float> x = Random(n, 1), w = Random(n, 2),
                             dy = Random(n, 3);
    std::vector<float> y(x.size()), dx(x.size());
    const float r = RmsNormRow(x.data(), w.data(), n, 1e-6f, y.data());
    RmsNormGradRow(x.data(), w.data(), dy.data(), r, n, dx.data());
    double squares = 0, dot = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      squares += static_cast<double>(x[i]) * x[i];
      dot += static_cast<double>(x[i]) * w[i] * dy[i];
    }
    const double inverse =
        1 / std::sqrt(squares / static_cast<double>(n) + 1e-6);
    for (size_t i = 0; i < x.size(); ++i) {
      EXPECT_NEAR(y[i], x[i] * inverse * w[i], 1e-5 * (1 + std::abs(y[i])));
      const double expected =
          inverse * w[i] * dy[i] -
          dot * inverse * inverse * inverse * x[i] / static_cast<double>(n);
      // Terms of either sign cancel, so the bound is that of the larger one.
      EXPECT_NEAR(dx[i], expected,
                  1e-5 * (1 + std::abs(inverse * w[i] * dy[i])));
    }
  }
}

TEST(RowOpsTest, GeluMulAndItsGradientMatchTheDefinition) {
  for (const int64_t n : kLengths) {
    const std::vector<float> g = Random(n, 4, 4.0f), u = Random(n, 5),
                             dy = Random(n, 6);
    std::vector<float> y(g.size()), dg(g.size()), du(g.size());
    GeluMulRow(g.data(), u.data(), n, y.data());
    GeluMulGradRow(g.data(), u.data(), dy.data(), n, dg.data(), du.data());
    for (size_t i = 0; i < g.size(); ++i) {
      const double slope = (Gelu(g[i] + 1e-5) - Gelu(g[i] - 1e-5)) / 2e-5;
      EXPECT_NEAR(y[i], Gelu(g[i]) * u[i], 4e-6 * (1 + std::abs(y[i])));
      EXPECT_NEAR(du[i], Gelu(g[i]) * dy[i], 4e-6 * (1 + std::abs(du[i])));
      EXPECT_NEAR(dg[i], slope * u[i] * dy[i], 1e-5 * (1 + std::abs(dg[i])));
    }
  }
}

TEST(RowOpsTest, SoftmaxSeesOnlyItsRange) {
  const int64_t n = 40, begin = 5, end = 23;
  std::vector<float> s = Random(n, 7, 10.0f);
  const std::vector<float> scores = s;
  MaskedSoftmaxRow(begin, end, n, 0.5f, s.data());
  double sum = 0, total = 0;
  for (int64_t j = begin; j < end; ++j) sum += std::exp(0.5 * scores[j]);
  for (int64_t j = 0; j < n; ++j) {
    const double expected =
        j >= begin && j < end ? std::exp(0.5 * scores[j]) / sum : 0;
    EXPECT_NEAR(s[j], expected, 1e-6);
    total += s[j];
  }
  EXPECT_NEAR(total, 1, 1e-6);
}

TEST(RowOpsTest, RopeRotatesBack) {
  const int64_t half = 19;
  std::vector<float> cosines, sines;
  for (int64_t j = 0; j < half; ++j) {
    cosines.push_back(std::cos(0.3f * static_cast<float>(j)));
    sines.push_back(std::sin(0.3f * static_cast<float>(j)));
  }
  const std::vector<float> x = Random(2 * half, 8);
  std::vector<float> y = x;
  RopeRow(cosines.data(), sines.data(), half, 1.0f, y.data());
  EXPECT_NEAR(y[3], x[3] * cosines[3] - x[22] * sines[3], 1e-6);
  EXPECT_NEAR(y[22], x[22] * cosines[3] + x[3] * sines[3], 1e-6);
  RopeRow(cosines.data(), sines.data(), half, -1.0f, y.data());
  for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(y[i], x[i], 1e-6);
}

TEST(RowOpsTest, LogSumExpHoldsForLongRowsAndExtremes) {
  std::vector<float> x = Random(262144, 9, 5.0f);
  x[77] = -std::numeric_limits<float>::max();
  double top = -1e30, sum = 0;
  for (const float value : x) top = std::max(top, static_cast<double>(value));
  for (const float value : x) sum += std::exp(value - top);
  const float expected = static_cast<float>(top + std::log(sum));
  EXPECT_NEAR(LogSumExpRow(x.data(), 262144), expected, 1e-5);
  ExpMinusRow(expected, 262144, x.data());
  double total = 0;
  for (const float value : x) total += value;
  EXPECT_NEAR(total, 1, 1e-5);
}

}  // namespace
}  // namespace onegrid::finetuner
