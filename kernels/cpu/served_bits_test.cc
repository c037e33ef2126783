// Every kernel gives the bits of kernels/reference/served_ops.h, on every
// instruction set that the machine running the test has, whatever the threads
// and the rows beside one.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/kv_cache.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/cpu/rope.h"
#include "kernels/quant/grid.h"
#include "kernels/quant/grid_blocks.h"
#include "kernels/reference/served_ops.h"

namespace onegrid::cpu {
namespace {

using kernels::Isa;
using kernels::ThreadPool;

// Of wide range, so that a sum in another order has other bits.
std::vector<float> RandomFloats(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(count));
  for (float& value : x) value = normal(random) * std::exp(normal(random));
  return x;
}

quant::GridMatrix RandomMatrix(const quant::Grid& grid, int64_t n, int64_t k) {
  std::mt19937 random(7);
  quant::GridMatrix w{n, k, {}, {}, &grid};
  const int codes = grid.max_code - grid.min_code + 1;
  for (int64_t i = 0; i < n * k; ++i) {
    w.codes.push_back(static_cast<int8_t>(
        static_cast<int>(random() % static_cast<uint32_t>(codes)) +
        grid.min_code));
  }
  for (int64_t i = 0; i < n * k / grid.group; ++i) {
    w.scales.push_back(
        quant::SnapScale(0.01f * static_cast<float>(1 + random() % 99)));
  }
  return w;
}

class ServedBits : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!kernels::IsaSupported(GetParam())) {
      GTEST_SKIP() << "no " << kernels::IsaName(GetParam()) << " here";
    }
  }

  // Sizes around vectors and sum lanes.
  const std::vector<int64_t> sizes_ = {1, 4, 7, 8, 15, 16, 17, 40, 100, 640};
  ThreadPool pool_{2};
};

TEST_P(ServedBits, RmsNorm) {
  // Of many rows, since the inverse root often hides one rounding of the sum.
  constexpr int64_t kRows = 32;
  for (const int64_t k : sizes_) {
    const auto weight = RandomFloats(k, 2);
    for (const bool add : {false, true}) {
      const auto x = RandomFloats(kRows * k, 1);
      std::vector<float> got = RandomFloats(kRows * k, 3), want = got;
      if (add) {
        RmsNormAdd(x.data(), weight.data(), kRows, k, 1e-6f, got.data(), pool_,
                   GetParam());
      } else {
        RmsNorm(x.data(), weight.data(), kRows, k, 1e-6f, got.data(), pool_,
                GetParam());
      }
      for (int64_t at = 0; at < kRows * k; at += k) {
        reference::ServedRmsNorm(x.data() + at, weight.data(), k, 1e-6f, add,
                                 want.data() + at);
      }
      EXPECT_EQ(got, want) << k << " " << add;
    }
  }
}

TEST_P(ServedBits, GeluMul) {
  for (const int64_t k : sizes_) {
    const auto gate = RandomFloats(k, 1), up = RandomFloats(k, 2);
    std::vector<float> got(gate.size()), want(gate.size());
    GeluMul(gate.data(), up.data(), k, got.data(), pool_, GetParam());
    reference::ServedGeluMul(gate.data(), up.data(), k, want.data());
    EXPECT_EQ(got, want) << k;
  }
}

TEST_P(ServedBits, SoftCap) {
  for (const int64_t k : sizes_) {
    auto x = RandomFloats(k, 1);
    for (float& value : x) value *= 100;
    std::vector<float> got(x.size()), want = x;
    SoftCap(x.data(), 30, k, got.data(), pool_, GetParam());
    reference::ServedSoftCap(30, k, want.data());
    EXPECT_EQ(got, want) << k;
  }
}

TEST_P(ServedBits, RopeOfSomePairsOnly) {
  constexpr int64_t kHalf = 32, kPairs = 5;
  RopeAngles angles(2 * kHalf, 1e6, 1, kPairs);
  angles.SetPositions({700}, pool_);
  const std::vector<float> x = RandomFloats(2 * kHalf, 1);
  std::vector<float> got = x, want = x;
  RopeNeox(angles, 1, got.data(), pool_, GetParam());
  std::vector<float> cosines(kHalf), sines(kHalf);
  reference::ServedRopeAngles(700, kHalf, 1e6, 1, cosines.data(), sines.data(),
                              kPairs);
  reference::ServedRope(cosines.data(), sines.data(), kHalf, want.data());
  EXPECT_EQ(got, want);
  for (int64_t i = 0; i < kHalf; ++i) {
    EXPECT_EQ(got[i] == x[i] && got[i + kHalf] == x[i + kHalf], i >= kPairs)
        << i;
  }
}

TEST_P(ServedBits, Rope) {
  for (const int64_t half : sizes_) {
    RopeAngles angles(2 * half, 10000, 1);
    angles.SetPositions({5, 1000}, pool_);
    std::vector<float> got = RandomFloats(4 * half, 1), want = got;
    RopeNeox(angles, 1, got.data(), pool_, GetParam());
    for (int row = 0; row < 2; ++row) {
      std::vector<float> cosines(static_cast<size_t>(half)), sines(cosines);
      reference::ServedRopeAngles(row == 0 ? 5 : 1000, half, 10000, 1,
                                  cosines.data(), sines.data());
      reference::ServedRope(cosines.data(), sines.data(), half,
                            want.data() + row * 2 * half);
    }
    EXPECT_EQ(got, want) << half;
  }
}

TEST_P(ServedBits, Linears) {
  // More than the 32 groups that AMX takes at a time.
  constexpr int64_t kN = 33, kK = 1088;
  for (const quant::Grid* grid :
       {&quant::kInt2G64, &quant::kInt4G32, &quant::kInt8G32}) {
    const auto w = RandomMatrix(*grid, kN, kK);
    const auto packed = PackedLinear::FromBlocks(
        quant::BlockType(*grid), *quant::PackBlocks(w), kN, kK, pool_);
    ASSERT_TRUE(packed.ok()) << packed.status();
    for (const CodeBits bits : {CodeBits::k8, CodeBits::k16}) {
      for (const int64_t m : {1, 2, 5, 8, 9, 12, 16, 17, 31, 45}) {
        const auto x = RandomFloats(m * kK, 4);
        QuantizedActivations quantized;
        QuantizeActivations(x, m, kK, bits, &quantized, pool_, GetParam());
        const auto input = reference::QuantizeServed(
            x.data(), m, kK, bits == CodeBits::k8 ? 8 : 16);
        std::vector<float> got(static_cast<size_t>(m * kN)), want(got.size());
        Linear(quantized, *packed, got.data(), pool_, GetParam());
        reference::ServedLinear(input, w, 0, kN, want.data());
        EXPECT_EQ(got, want) << grid->name << ", " << m;
      }
    }
  }
}

// `tokens` in chunks of `chunk`, each token against the scalar form.
void CheckAttention(Isa isa, int threads, int64_t tokens, int64_t chunk,
                    int64_t window, int64_t heads, int64_t kv_heads,
                    int64_t d) {
  ThreadPool pool(threads);
  const auto q = RandomFloats(tokens * heads * d, 1);
  const auto k = RandomFloats(tokens * kv_heads * d, 2);
  const auto v = RandomFloats(tokens * kv_heads * d, 3);
  KvInt8 cache(KvLayout{d, kv_heads, tokens});
  reference::ServedCache plain(kv_heads, d);
  std::vector<float> got(q.size()), want(q.size());
  for (int64_t first = 0; first < tokens; first += chunk) {
    const int64_t count = std::min(chunk, tokens - first);
    cache.Append(k.data() + first * kv_heads * d,
                 v.data() + first * kv_heads * d, count, pool, isa);
    const AttendItem<KvInt8> item{&cache, q.data() + first * heads * d, count,
                                  first, got.data() + first * heads * d};
    Attend(absl::MakeConstSpan(&item, 1), {heads, window, 0.0625f}, pool, isa);
  }
  for (int64_t t = 0; t < tokens; ++t) {
    reference::ServedAppend(k.data() + t * kv_heads * d,
                            v.data() + t * kv_heads * d, &plain);
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t at = (t * heads + h) * d;
      reference::ServedAttend(q.data() + at, plain, h / (heads / kv_heads), t,
                              window, 0.0625f, want.data() + at);
    }
  }
  EXPECT_EQ(got, want) << tokens << " tokens by " << chunk << ", window "
                       << window << ", " << threads << " threads";
}

TEST_P(ServedBits, AttentionOfPrompts) {
  CheckAttention(GetParam(), 1, 300, 300, 0, 4, 1, 64);
  CheckAttention(GetParam(), 2, 300, 77, 100, 4, 1, 32);
  CheckAttention(GetParam(), 2, 70, 70, 0, 4, 2, 256);
  CheckAttention(GetParam(), 1, 40, 40, 0, 1, 1, 512);
}

TEST_P(ServedBits, AttentionOfSingleTokens) {
  // More threads than blocks: the parts of the keys run apart.
  CheckAttention(GetParam(), 3, 600, 1, 0, 2, 1, 32);
  CheckAttention(GetParam(), 3, 600, 1, 300, 2, 1, 32);
}

INSTANTIATE_TEST_SUITE_P(AllIsas, ServedBits,
                         testing::ValuesIn(kernels::kAllIsas),
                         [](const auto& info) {
                           return kernels::IsaName(info.param);
                         });

// The scalar form is itself near the exact functions.
TEST(ServedOps, ExpIsWithinTwoUlps) {
  for (float x = -86.9f; x < 87.9f; x += 0.0137f) {
    const double exact = std::exp(static_cast<double>(x));
    EXPECT_NEAR(reference::ServedExp(x), exact, exact * 0x1p-22) << x;
  }
}

}  // namespace
}  // namespace onegrid::cpu
