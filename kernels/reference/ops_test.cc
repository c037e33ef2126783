#include "kernels/reference/ops.h"

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace onegrid::reference {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::Pointwise;

// Results are rounded to float once: half an ulp of values below 8.
constexpr float kOneRounding = 8 * 0x1p-24f;

std::vector<float> Normal(size_t n, int seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& v : x) v = normal(random);
  return x;
}

TEST(MatMulTest, MultipliesRowsByRows) {
  EXPECT_THAT(MatMul({1, 2, 3, 4, 5, 6}, {1, 0, -1, 2, 2, 2}, 2, 2, 3),
              ElementsAre(-2, 12, -2, 30));
}

TEST(MatMulTest, SumsInDouble) {
  // In float 1e8 + 1 - 1e8 is 0.
  EXPECT_THAT(MatMul({1, 1, 1}, {1e8f, 1, -1e8f}, 1, 1, 3), ElementsAre(1));
}

TEST(MatMulDeathTest, WrongSizeEndsTheProcess) {
  EXPECT_DEATH(MatMul({1, 2}, {1, 2, 3}, 1, 1, 3), "check failed");
}

TEST(RmsNormTest, DividesByRootMeanSquareAndScales) {
  // Mean square of {3, 4} is 12.5; with eps 12.5 the root is 5.
  EXPECT_THAT(RmsNorm({3, 4, 0, 0}, {1, 2}, 2, 2, 12.5),
              Pointwise(FloatNear(kOneRounding), {0.6f, 1.6f, 0.0f, 0.0f}));
}

TEST(RopeNeoxTest, TurnsEachPairByItsAngle) {
  // D = 4, theta = 16: pair 0 turns by p, pair 1 by p / 4.
  const std::vector<float> x = {1, 0, 0, 2, 1, 0, 0, 2};
  const auto y = RopeNeox(x, {0, 3}, 1, 4, 16.0, 1.0);
  EXPECT_THAT(absl::MakeConstSpan(y).subspan(0, 4), ElementsAre(1, 0, 0, 2));
  EXPECT_THAT(absl::MakeConstSpan(y).subspan(4, 4),
              Pointwise(FloatNear(kOneRounding),
                        {static_cast<float>(std::cos(3.0)),
                         static_cast<float>(-2 * std::sin(0.75)),
                         static_cast<float>(std::sin(3.0)),
                         static_cast<float>(2 * std::cos(0.75))}));
}

TEST(RopeNeoxTest, PositionScaleDividesThePosition) {
  const auto x = Normal(2 * 3 * 8, 1);
  EXPECT_EQ(RopeNeox(x, {8, 16}, 3, 8, 1e4, 8.0),
            RopeNeox(x, {1, 2}, 3, 8, 1e4, 1.0));
}

TEST(GeluTanhTest, KnownValues) {
  // torch.nn.functional.gelu(x, approximate='tanh') in float64.
  EXPECT_THAT(
      GeluTanh({0, 1, -1, 3, -10}),
      Pointwise(FloatNear(kOneRounding),
                {0.0f, 0.8411919906f, -0.1588080094f, 2.9963627572f, 0.0f}));
}

TEST(SoftmaxTest, RowsSumToOneWhateverTheOffset) {
  EXPECT_THAT(Softmax({0, 0, 1000, 1000 + std::log(3.0f)}, 2, 2),
              Pointwise(FloatNear(1e-5f), {0.5f, 0.5f, 0.25f, 0.75f}));
}

TEST(AttentionTest, WeighsTheValuesOfVisibleKeys) {
  // q . k = log 3 for key 0, 0 for key 1: weights 3/4 and 1/4 at position 1.
  const float log3 = std::log(3.0f);
  const AttentionShape shape = {.queries = 2,
                                .keys = 2,
                                .heads = 1,
                                .kv_heads = 1,
                                .head_dim = 2,
                                .first_pos = 0,
                                .window = 0,
                                .scale = 0.5};
  const auto out =
      Attention(shape, {1, 1, 1, 1}, {log3, log3, 0, 0}, {4, 8, 0, -8});
  EXPECT_THAT(out, Pointwise(FloatNear(1e-5f), {4.0f, 8.0f, 3.0f, 4.0f}));
}

TEST(AttentionTest, WindowOfOneReturnsTheTokensOwnValue) {
  AttentionShape shape = {.queries = 3,
                          .keys = 5,
                          .heads = 4,
                          .kv_heads = 2,
                          .head_dim = 8,
                          .first_pos = 2,
                          .window = 1,
                          .scale = 1};
  const auto q = Normal(3 * 4 * 8, 2);
  const auto k = Normal(5 * 2 * 8, 3);
  const auto v = Normal(5 * 2 * 8, 4);
  const auto out = Attention(shape, q, k, v);
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t h = 0; h < 4; ++h) {
      for (int64_t i = 0; i < 8; ++i) {
        EXPECT_EQ(out[(t * 4 + h) * 8 + i], v[((t + 2) * 2 + h / 2) * 8 + i]);
      }
    }
  }
}

// A query in a chunk sees what it would see alone; a window that covers every
// position is no window.
TEST(AttentionTest, ChunkEqualsOneQueryAtATime) {
  AttentionShape shape = {.queries = 4,
                          .keys = 7,
                          .heads = 2,
                          .kv_heads = 1,
                          .head_dim = 4,
                          .first_pos = 3,
                          .window = 3,
                          .scale = 0.5};
  const auto q = Normal(4 * 2 * 4, 5);
  const auto k = Normal(7 * 4, 6);
  const auto v = Normal(7 * 4, 7);
  const auto all = Attention(shape, q, k, v);
  AttentionShape one = shape;
  one.queries = 1;
  for (int64_t t = 0; t < 4; ++t) {
    one.first_pos = 3 + t;
    const auto row =
        Attention(one, absl::MakeConstSpan(q).subspan(t * 8, 8), k, v);
    EXPECT_EQ(absl::MakeConstSpan(all).subspan(t * 8, 8),
              absl::MakeConstSpan(row));
  }
  AttentionShape wide = shape;
  wide.window = 7;
  AttentionShape open = shape;
  open.window = 0;
  EXPECT_EQ(Attention(wide, q, k, v), Attention(open, q, k, v));
  EXPECT_NE(Attention(wide, q, k, v), all);
}

TEST(HadamardTest, SizeTwoAndFour) {
  const float r = std::sqrt(0.5f);
  EXPECT_THAT(Hadamard({1, 0, 0, 1}, 2, 2),
              Pointwise(FloatNear(kOneRounding), {r, r, r, -r}));
  EXPECT_THAT(Hadamard({0, 0, 0, 2}, 1, 4), ElementsAre(1, -1, -1, 1));
}

TEST(HadamardTest, IsItsOwnInverse) {
  const auto x = Normal(3 * 64, 8);
  EXPECT_THAT(Hadamard(Hadamard(x, 3, 64), 3, 64),
              Pointwise(FloatNear(8 * kOneRounding), x));
}

TEST(HadamardDeathTest, SizeMustBeAPowerOfTwo) {
  EXPECT_DEATH(Hadamard({1, 2, 3}, 1, 3), "check failed");
}

}  // namespace
}  // namespace onegrid::reference
