#include "kernels/quant/exact_grid.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/quant/grid.h"
#include "kernels/quant/q8_0.h"

namespace onegrid::quant {
namespace {

std::vector<float> Normal(int64_t count) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 0.05f);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

std::vector<float> Values(const GridMatrix& matrix) {
  std::vector<float> values(matrix.codes.size());
  DequantizeMatrix(matrix, absl::MakeSpan(values));
  return values;
}

TEST(ExactGridTest, EveryGridComesBackFromItsValues) {
  for (const Grid* grid : {&kInt2G64, &kInt4G32, &kInt8G32}) {
    const auto made = EncodeMatrix(Normal(12 * 128), 12, 128, *grid);
    ASSERT_TRUE(made.ok());
    const auto found = FindExactGrid(Values(*made), 12, 128);
    ASSERT_TRUE(found.has_value()) << grid->name;
    EXPECT_EQ(found->grid, grid);
    EXPECT_EQ(found->codes, made->codes);
    EXPECT_EQ(found->scales, made->scales);
  }
}

TEST(ExactGridTest, GgmlsQ8_0ComesBackWithElevenBitsAndZeros) {
  std::vector<float> w = Normal(8 * 64);
  for (int i = 32; i < 64; ++i) w[i] = 0;
  const auto blocks = EncodeQ8_0(w, 8, 64);
  ASSERT_TRUE(blocks.ok());
  const auto made = UnpackQ8_0(*blocks, 8, 64);
  ASSERT_TRUE(made.ok());
  const auto found = FindExactGrid(Values(*made), 8, 64);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->grid, &kInt8G32);
  EXPECT_EQ(found->codes, made->codes);
  EXPECT_EQ(found->scales, made->scales);
  EXPECT_EQ(found->scales[1], 0);
}

TEST(ExactGridTest, AGroupOfZerosOnFewBitsHasTheSmallestScale) {
  std::vector<float> w(64);
  w[3] = -8 * 0.25f;
  w[4] = 7 * 0.25f;
  const auto found = FindExactGrid(w, 1, 64);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->grid, &kInt4G32);
  EXPECT_EQ(found->scales, (std::vector<float>{0.25f, kMinScale}));
}

TEST(ExactGridTest, SmallCodesAtTheSmallestScaleStay) {
  for (const float first : {8.0f, 127.0f}) {  // on int4_g32, on int8_g32
    std::vector<float> w(64);
    w[0] = -first;
    w[1] = 7;
    w[32] = -3 * kMinScale;
    w[33] = 2 * kMinScale;
    const auto found = FindExactGrid(w, 1, 64);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->codes[32], -3);
    EXPECT_EQ(found->codes[33], 2);
    EXPECT_EQ(found->scales, (std::vector<float>{1, kMinScale}));
  }
}

TEST(ExactGridTest, OneGroupOffTheGridIsNone) {
  const auto made = EncodeMatrix(Normal(4 * 64), 4, 64, kInt8G32);
  ASSERT_TRUE(made.ok());
  std::vector<float> w = Values(*made);
  w[200] = std::nextafter(w[200], 1.0f);
  EXPECT_FALSE(FindExactGrid(w, 4, 64).has_value());
}

TEST(ExactGridTest, OrdinaryAndAbsurdInputIsNone) {
  EXPECT_FALSE(FindExactGrid(Normal(64), 1, 64).has_value());
  EXPECT_FALSE(FindExactGrid(std::vector<float>(64), 1, 64).has_value());
  EXPECT_FALSE(FindExactGrid({}, 0, 0).has_value());
  EXPECT_FALSE(FindExactGrid(Normal(64), 1, 63).has_value());
  EXPECT_FALSE(FindExactGrid(Normal(64), -1, 64).has_value());
  EXPECT_FALSE(FindExactGrid(Normal(64), 2, 64).has_value());
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(), 1e30f,
                          std::numeric_limits<float>::denorm_min()}) {
    std::vector<float> w(32);
    w[7] = bad;
    EXPECT_FALSE(FindExactGrid(w, 1, 32).has_value()) << bad;
  }
}

}  // namespace
}  // namespace onegrid::quant
