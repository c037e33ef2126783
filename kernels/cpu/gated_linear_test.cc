#include "kernels/cpu/gated_linear.h"

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/random_floats.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/quant/ggml_types.h"

namespace onegrid::cpu {
namespace {

using kernels::Isa;
using kernels::RandomFloats;
using kernels::ThreadPool;
using quant::GgmlType;

// Blocks of Q4_0 or Q8_0: an f16 scale of 2^-6 to 2^-4, then any codes.
PackedLinear RandomWeights(GgmlType type, int64_t n, int64_t k, uint32_t seed,
                           ThreadPool& pool) {
  std::mt19937 random(seed);
  const int64_t row_bytes = *quant::RowBytes(type, k);
  std::vector<uint8_t> blocks(static_cast<size_t>(n * row_bytes));
  for (uint8_t& byte : blocks) byte = static_cast<uint8_t>(random());
  const size_t block = static_cast<size_t>(row_bytes / (k / 32));
  for (size_t at = 0; at < blocks.size(); at += block) {
    blocks[at + 1] = static_cast<uint8_t>(0x24 + random() % 8);
  }
  auto weights = PackedLinear::FromBlocks(type, blocks, n, k, pool);
  EXPECT_TRUE(weights.ok()) << weights.status();
  return *std::move(weights);
}

class GatedLinearTest : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!kernels::IsaSupported(GetParam())) {
      GTEST_SKIP() << "no " << kernels::IsaName(GetParam()) << " here";
    }
  }
};

struct Case {
  int64_t m, n;
  int threads;
  CodeBits bits = CodeBits::k8;
  GgmlType type = GgmlType::kQ4_0;
};

void ExpectSameAsOneByOne(const Case& c, Isa isa) {
  constexpr int64_t kK = 64;
  ThreadPool pool(c.threads);
  const PackedLinear gate = RandomWeights(c.type, c.n, kK, 1, pool);
  const PackedLinear up = RandomWeights(c.type, c.n, kK, 2, pool);
  const std::vector<float> x = RandomFloats(c.m * kK, 3);
  QuantizedActivations input, got, want;
  QuantizeActivations(x, c.m, kK, c.bits, &input, pool, isa);
  GatedLinear(input, gate, up, &got, pool, isa);
  std::vector<float> gates(static_cast<size_t>(c.m * c.n)), ups(gates.size());
  Linear(input, gate, gates.data(), pool, isa);
  Linear(input, up, ups.data(), pool, isa);
  GeluMul(gates.data(), ups.data(), c.m * c.n, gates.data(), pool, isa);
  QuantizeActivations(gates, c.m, c.n, c.bits, &want, pool, isa);
  ASSERT_EQ(got.panels().size(), want.panels().size());
  for (int64_t row = 0; row < c.m; ++row) {
    for (int64_t i = 0; i < c.n; ++i) {
      ASSERT_EQ(got.CodeAt(row, i), want.CodeAt(row, i)) << row << ' ' << i;
      ASSERT_EQ(got.ScaleAt(row, i / 32), want.ScaleAt(row, i / 32));
    }
  }
  // What is made of it, offsets too.
  const PackedLinear down = RandomWeights(c.type, 16, c.n, 4, pool);
  std::vector<float> a(static_cast<size_t>(c.m * 16)), b(a.size());
  Linear(got, down, a.data(), pool, isa);
  Linear(want, down, b.data(), pool, isa);
  EXPECT_EQ(a, b);
}

// Rows of one panel and of several, more than are worked on at a time; columns
// of one group, and of more than a set with a rest.
TEST_P(GatedLinearTest, GivesTheBitsOfItsStepsOneByOne) {
  for (const int threads : {1, 3}) {
    for (const int64_t m : {1, 5, 16, 40, 150, 530}) {
      for (const int64_t n : {32, 160, 416, 2048}) {
        SCOPED_TRACE(testing::Message() << m << " x " << n << ", " << threads);
        ExpectSameAsOneByOne({m, n, threads}, GetParam());
      }
    }
  }
}

TEST_P(GatedLinearTest, TakesOtherWeightsAndWiderCodes) {
  for (const int64_t m : {1, 9, 33}) {
    ExpectSameAsOneByOne({m, 96, 2, CodeBits::k8, GgmlType::kQ8_0}, GetParam());
    ExpectSameAsOneByOne({m, 96, 2, CodeBits::k16}, GetParam());
  }
}

TEST_P(GatedLinearTest, NoRowsGiveNoRows) {
  ThreadPool pool(1);
  const PackedLinear w = RandomWeights(GgmlType::kQ4_0, 32, 64, 1, pool);
  QuantizedActivations input, out;
  QuantizeActivations({}, 0, 64, CodeBits::k8, &input, pool, GetParam());
  GatedLinear(input, w, w, &out, pool, GetParam());
  EXPECT_EQ(out.m(), 0);
  EXPECT_EQ(out.k(), 32);
}

INSTANTIATE_TEST_SUITE_P(AllIsas, GatedLinearTest,
                         testing::ValuesIn(kernels::kAllIsas),
                         [](const auto& info) {
                           return kernels::IsaName(info.param);
                         });

}  // namespace
}  // namespace onegrid::cpu
