#include "kernels/quant/grid_recovery.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/base/float_types.h"
#include "kernels/quant/grid.h"

namespace onegrid::quant {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

float Bf16(float v) { return kernels::Bf16ToFloat(kernels::FloatToBf16(v)); }

std::vector<float> Values(const std::vector<int8_t>& codes, float step) {
  std::vector<float> w;
  for (const int8_t code : codes) w.push_back(Bf16(code * step));
  return w;
}

// 32 codes of a bell-shaped group with an odd code, the largest at `peak`.
std::vector<int8_t> Codes(std::mt19937& random, int peak) {
  std::normal_distribution<float> normal(0.0f, std::abs(peak) / 2.5f);
  std::vector<int8_t> codes(kGroup);
  const int most = std::abs(peak) - 1;
  for (int8_t& code : codes) {
    code = static_cast<int8_t>(
        std::clamp<int>(std::lround(normal(random)), -most, most));
  }
  codes[7] = static_cast<int8_t>(peak);
  codes[20] = -1;
  codes[21] = 3;
  return codes;
}

// Steps of 8 significant bits are found exactly, whatever code is the largest.
TEST(FindLatticeTest, FindsCodesAndDualExactSteps) {
  std::mt19937 random(7);
  std::uniform_real_distribution<float> exponent(-12.0f, 3.0f);
  for (const int peak : {-8, -7, 7, -6, 6, 5, -5, 4}) {
    for (int i = 0; i < 500; ++i) {
      const std::vector<int8_t> codes = Codes(random, peak);
      const float step = SnapScale(std::exp2(exponent(random)));
      const auto lattice = FindLattice(Values(codes, step));
      ASSERT_TRUE(lattice.has_value());
      EXPECT_THAT(lattice->codes, ElementsAreArray(codes)) << step;
      EXPECT_EQ(lattice->step, step);
    }
  }
}

// Other steps: the codes, and a step that gives the same weights.
TEST(FindLatticeTest, FindsStepsThatAreNotBf16) {
  std::mt19937 random(8);
  std::uniform_real_distribution<float> steps(0.001f, 0.1f);
  for (const int peak : {-8, 7, -6, 5}) {
    for (int i = 0; i < 500; ++i) {
      const std::vector<int8_t> codes = Codes(random, peak);
      const std::vector<float> w = Values(codes, steps(random));
      const auto lattice = FindLattice(w);
      ASSERT_TRUE(lattice.has_value());
      EXPECT_THAT(lattice->codes, ElementsAreArray(codes));
      EXPECT_EQ(Values(codes, lattice->step), w);
    }
  }
}

TEST(FindLatticeTest, NegativeStepBecomesPositiveUnlessACodeIsMinusEight) {
  std::mt19937 random(9);
  const std::vector<int8_t> seven = Codes(random, -7);
  auto lattice = FindLattice(Values(seven, -0.0625f));
  ASSERT_TRUE(lattice.has_value());
  EXPECT_EQ(lattice->step, 0.0625f);
  EXPECT_EQ(lattice->codes[7], 7);
  const std::vector<int8_t> eight = Codes(random, -8);
  lattice = FindLattice(Values(eight, -0.0625f));
  ASSERT_TRUE(lattice.has_value());
  EXPECT_EQ(lattice->step, -0.0625f);
  EXPECT_THAT(lattice->codes, ElementsAreArray(eight));
}

TEST(FindLatticeTest, OfEqualLatticesTheFinest) {
  std::vector<float> w(kGroup, 0.0f);
  w[3] = 1.0f;
  auto lattice = FindLattice(w);
  ASSERT_TRUE(lattice.has_value());
  EXPECT_EQ(lattice->codes[3], 4);  // 1 / 7, 1 / 6 and 1 / 5 are no bf16
  EXPECT_EQ(lattice->step, 0.25f);
  w[3] = -1.0f;
  lattice = FindLattice(w);
  EXPECT_EQ(lattice->codes[3], -8);
  EXPECT_EQ(lattice->step, 0.125f);
}

// One weight a bf16 step away from its place is enough: no lattice.
TEST(FindLatticeTest, OneWeightOffTheLatticeIsSeen) {
  std::mt19937 random(10);
  for (int i = 0; i < 32; ++i) {
    std::vector<float> w = Values(Codes(random, -8), 0.013671875f);
    const uint16_t bits = kernels::FloatToBf16(w[i]);
    w[i] = w[i] == 0 ? 1e-6f : kernels::Bf16ToFloat(bits + 3);
    EXPECT_FALSE(FindLattice(w).has_value()) << i;
  }
}

TEST(FindLatticeTest, NoLatticeForOtherInput) {
  EXPECT_FALSE(FindLattice(std::vector<float>(kGroup, 0.0f)).has_value());
  EXPECT_FALSE(FindLattice(std::vector<float>(31, 1.0f)).has_value());
  EXPECT_FALSE(FindLattice({}).has_value());
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(), 1.0001f}) {
    std::vector<float> w(kGroup, 1.0f);
    w[5] = bad;
    EXPECT_FALSE(FindLattice(w).has_value()) << bad;
  }
  // The ends of bf16 neither crash nor loop.
  FindLattice(std::vector<float>(kGroup, 0x1.fep127f));
  FindLattice(std::vector<float>(kGroup, Bf16(1e-40f)));
}

TEST(RecoverMatrixTest, KeepsValuesAndCountsEveryKindOfGroup) {
  std::mt19937 random(11);
  std::vector<float> w;
  const auto add = [&](const std::vector<float>& group) {
    w.insert(w.end(), group.begin(), group.end());
  };
  const std::vector<int8_t> codes = Codes(random, -8);
  add(Values(codes, 0.03125f));           // exact
  add(Values(codes, 0.0321f));            // snapped
  add(std::vector<float>(kGroup, 0.0f));  // zero
  add(Values(codes, -0.03125f));          // negative step
  add(Values(codes, 0x1p-20f));           // below the scales' range
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<float> other(kGroup);
  for (float& v : other) v = Bf16(normal(random));
  add(other);  // no lattice
  const auto recovery = RecoverMatrix(w, 2, 96);
  ASSERT_TRUE(recovery.ok()) << recovery.status();
  const RecoveryCounts& counts = recovery->counts;
  EXPECT_EQ(counts.on_grid, 2);
  EXPECT_EQ(counts.snapped, 1);
  EXPECT_EQ(counts.zero, 1);
  EXPECT_EQ(counts.fallback, 3);
  EXPECT_EQ(counts.unheld, 2);
  const GridMatrix& matrix = recovery->matrix;
  ASSERT_TRUE(ValidateMatrix(matrix).ok());
  for (const float scale : matrix.scales) EXPECT_TRUE(IsDualExact(scale));
  EXPECT_EQ(matrix.scales[0], 0.03125f);
  EXPECT_EQ(matrix.scales[1], SnapScale(0.0321f));
  for (int i = 0; i < kGroup; ++i) {
    EXPECT_EQ(matrix.codes[i], codes[i]);
    EXPECT_EQ(matrix.codes[kGroup + i], codes[i]);
    EXPECT_EQ(matrix.codes[2 * kGroup + i], 0);
  }
  const auto encoded = EncodeMatrix(other, 1, kGroup, kInt4G32);
  ASSERT_TRUE(encoded.ok());
  EXPECT_EQ(matrix.scales[5], encoded->scales[0]);
}

TEST(RecoverMatrixTest, HostileWeightsAreRefusedByPlace) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          -std::numeric_limits<float>::infinity(), 1e30f}) {
    std::vector<float> w(256, 0.5f);
    w[130] = bad;
    const auto recovery = RecoverMatrix(w, 2, 128);
    EXPECT_EQ(recovery.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(recovery.status().message()),
                HasSubstr("row 1, group 0"));
  }
  EXPECT_FALSE(RecoverMatrix(std::vector<float>(64), 2, 33).ok());
  EXPECT_FALSE(RecoverMatrix(std::vector<float>(64), 1, 32).ok());
  EXPECT_TRUE(RecoverMatrix({}, 0, 32).ok());
}

}  // namespace
}  // namespace onegrid::quant
