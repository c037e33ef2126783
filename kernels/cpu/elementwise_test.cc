// Tests of norm, activation, rope and rotation, on every instruction set that
// the machine running the test has.
#include "kernels/cpu/elementwise.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/random_floats.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/hadamard.h"
#include "kernels/cpu/rope.h"
#include "kernels/reference/ops.h"

namespace onegrid::cpu {
namespace {

using kernels::Isa;
using kernels::RandomFloats;
using kernels::ThreadPool;

// Unit roundoff of float.
constexpr double kU = 0x1p-24;

class ElementwiseTest : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!kernels::IsaSupported(GetParam())) GTEST_SKIP() << "no such processor";
  }
  ThreadPool pool_{3};
};

// The sum of k squares errs by a factor of (k + 2) u at most, its root by half
// of that; five more roundings follow.
TEST_P(ElementwiseTest, RmsNormMatchesReference) {
  for (int64_t k : {1, 3, 15, 16, 31, 33, 129, 640}) {
    for (int64_t m : {1, 3, 64}) {
      const auto x = RandomFloats(m * k, 1);
      const auto weight = RandomFloats(k, 2);
      std::vector<float> out(x.size());
      RmsNorm(x.data(), weight.data(), m, k, 1e-6f, out.data(), pool_,
              GetParam());
      const auto want = reference::RmsNorm(x, weight, m, k, 1e-6);
      const double relative = (static_cast<double>(k) / 2 + 8) * kU;
      for (size_t i = 0; i < out.size(); ++i) {
        ASSERT_NEAR(out[i], want[i], relative * std::fabs(want[i]))
            << m << " " << k;
      }
      std::vector<float> sum = RandomFloats(m * k, 3);
      const std::vector<float> residual = sum;
      RmsNormAdd(x.data(), weight.data(), m, k, 1e-6f, sum.data(), pool_,
                 GetParam());
      for (size_t i = 0; i < out.size(); ++i) {
        const double exact = double{residual[i]} + want[i];
        ASSERT_NEAR(sum[i], exact,
                    relative * std::fabs(want[i]) + 2 * kU * std::fabs(exact));
      }
    }
  }
}

// The bound stated in the header, against the definition in double.
TEST_P(ElementwiseTest, GeluMulIsWithinItsStatedError) {
  std::vector<float> gate;
  for (int i = -20000; i <= 20000; ++i) {
    gate.push_back(static_cast<float>(i) / 1024.0f);
  }
  for (float x : {0.0f, -0.0f, 1e-38f, 1e4f, -1e4f}) gate.push_back(x);
  const std::vector<float> up =
      RandomFloats(static_cast<int64_t>(gate.size()), 1);
  std::vector<float> out(gate.size());
  GeluMul(gate.data(), up.data(), static_cast<int64_t>(gate.size()), out.data(),
          pool_, GetParam());
  for (size_t i = 0; i < gate.size(); ++i) {
    const double x = gate[i];
    const double z =
        std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x);
    const double want = x / (1 + std::exp(-2 * z)) * up[i];
    ASSERT_NEAR(out[i], want,
                (16 + 8 * std::fabs(z)) * kU * std::fabs(want) +
                    1e-30 * std::fabs(up[i]))
        << x;
  }
}

TEST_P(ElementwiseTest, SoftCapIsWithinItsStatedError) {
  std::vector<float> x;
  for (int i = -20000; i <= 20000; ++i) {
    x.push_back(static_cast<float>(i) / 64.0f);
  }
  for (float extreme : {1e4f, -1e4f, 1e30f, -1e30f}) x.push_back(extreme);
  std::vector<float> out(x.size());
  SoftCap(x.data(), 30, static_cast<int64_t>(x.size()), out.data(), pool_,
          GetParam());
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_NEAR(out[i], 30 * std::tanh(x[i] / 30.0), 30 * 0x1p-22) << x[i];
  }
}

TEST_P(ElementwiseTest, AddAndScaleCoverEveryTail) {
  for (int64_t count : {0, 1, 3, 15, 16, 17, 31, 33, 40000}) {
    const auto a = RandomFloats(count, 1), b = RandomFloats(count, 2);
    std::vector<float> sum(a.size() + 1, 7.0f), product = sum;
    Add(a.data(), b.data(), count, sum.data(), pool_, GetParam());
    Scale(a.data(), 1.5f, count, product.data(), pool_, GetParam());
    for (size_t i = 0; i < a.size(); ++i) {
      ASSERT_EQ(sum[i], a[i] + b[i]);
      ASSERT_EQ(product[i], a[i] * 1.5f);
    }
    EXPECT_EQ(sum.back(), 7.0f);
    EXPECT_EQ(product.back(), 7.0f);
  }
}

// Angles are exact to a float rounding of sine and cosine: three roundings on
// each of two products.
TEST_P(ElementwiseTest, RopeMatchesReference) {
  const std::vector<int32_t> positions = {0, 1, 5, 511, 100000, 3, 2};
  for (int64_t head_dim : {2, 6, 32, 66, 256}) {
    for (int64_t heads : {1, 4}) {
      const int64_t rows = static_cast<int64_t>(positions.size());
      auto x = RandomFloats(rows * heads * head_dim, 1);
      const auto want =
          reference::RopeNeox(x, positions, heads, head_dim, 1e6, 8.0);
      float largest = 0;
      for (float v : x) largest = std::max(largest, std::fabs(v));
      RopeAngles angles(head_dim, 1e6, 8.0);
      angles.SetPositions(positions, pool_);
      RopeNeox(angles, heads, x.data(), pool_, GetParam());
      for (size_t i = 0; i < x.size(); ++i) {
        ASSERT_NEAR(x[i], want[i], 6 * kU * largest) << head_dim << " " << i;
      }
    }
  }
}

// log2 d stages of additions and one multiplication; no intermediate exceeds
// sqrt(d) times the largest input.
TEST_P(ElementwiseTest, HadamardMatchesReference) {
  for (int64_t d : {16, 32, 64, 256, 512}) {
    for (int64_t m : {1, 3}) {
      auto x = RandomFloats(m * d, 1);
      const auto want = reference::Hadamard(x, m, d);
      float largest = 0;
      for (float v : x) largest = std::max(largest, std::fabs(v));
      Hadamard(x.data(), m, d, pool_, GetParam());
      for (size_t i = 0; i < x.size(); ++i) {
        ASSERT_NEAR(x[i], want[i],
                    12 * kU * std::sqrt(static_cast<double>(d)) * largest)
            << d << " " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, ElementwiseTest,
                         testing::ValuesIn(kernels::kAllIsas),
                         [](const auto& info) {
                           return kernels::IsaName(info.param);
                         });

}  // namespace
}  // namespace onegrid::cpu
