#include "kernels/quant/int8_activations.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/random_floats.h"

namespace onegrid::quant {
namespace {

TEST(Int8ActivationsTest, LargestMagnitudeIs127AndTiesGoToEven) {
  // A scale of exactly 1/2, so that the products are exact.
  std::vector<float> x = {-63.5f, 0.25f, 0.75f, -0.25f, -0.75f, 1.25f, 0, 63};
  std::vector<int8_t> codes(x.size());
  EXPECT_EQ(QuantizeInt8(x, codes.data()), 0.5f);
  EXPECT_EQ(codes, (std::vector<int8_t>{-127, 0, 2, 0, -2, 2, 0, 126}));
}

TEST(Int8ActivationsTest, GroupsTooSmallForAnInverseBecomeZero) {
  std::vector<float> x(kActivationGroup, -1e-31f);
  std::vector<int8_t> codes(x.size(), 1);
  QuantizeInt8(x, codes.data());
  EXPECT_EQ(codes, std::vector<int8_t>(x.size(), 0));
  for (float amax : {0.0f, 1e-38f, 1e-30f}) {
    std::vector<float> one(kActivationGroup, amax), two = one;
    FakeQuantizeInt8(absl::MakeSpan(one));
    FakeQuantizeInt16(absl::MakeSpan(two));
    for (float value : one) EXPECT_EQ(value, 0);
    for (float value : two) EXPECT_EQ(value, 0);
  }
}

TEST(Int8ActivationsTest, LargestMagnitudeIs32767In16Bits) {
  std::vector<float> x = {-16383.5f, 0.25f, 0.75f, -0.25f, -0.75f, 16383};
  std::vector<int16_t> codes(x.size());
  EXPECT_EQ(QuantizeInt16(x, codes.data()), 0.5f);
  EXPECT_EQ(codes, (std::vector<int16_t>{-32767, 0, 2, 0, -2, 32766}));
  // Whatever the largest magnitude is, its code is the largest one.
  for (const float amax : kernels::RandomFloats(1000, 3)) {
    const std::vector<float> one = {amax};
    QuantizeInt16(one, codes.data());
    EXPECT_EQ(codes[0], amax > 0 ? 32767 : -32767) << amax;
  }
}

TEST(Int8ActivationsTest, FakeValuesAreCodeTimesScaleGroupByGroup) {
  const std::vector<float> x = kernels::RandomFloats(96, 1);
  std::vector<float> fake = x, fake16 = x;
  FakeQuantizeInt8(absl::MakeSpan(fake));
  FakeQuantizeInt16(absl::MakeSpan(fake16));
  for (size_t at = 0; at < x.size(); at += kActivationGroup) {
    const auto group = absl::MakeConstSpan(x).subspan(at, kActivationGroup);
    int8_t codes[kActivationGroup];
    int16_t codes16[kActivationGroup];
    const float scale = QuantizeInt8(group, codes);
    const float scale16 = QuantizeInt16(group, codes16);
    for (int i = 0; i < kActivationGroup; ++i) {
      EXPECT_EQ(fake[at + i], codes[i] * scale);
      EXPECT_EQ(fake16[at + i], codes16[i] * scale16);
      // Half a step, and three roundings of values of up to 32,767 steps.
      EXPECT_NEAR(fake16[at + i], group[i],
                  scale16 * (0.5f + 32767 * 3 * 0x1p-24f));
    }
  }
}

TEST(Int8ActivationsTest, HadamardIsItsOwnInverseAndKeepsLengths) {
  for (int d : {1, 2, 32, 128, 256, 512}) {
    const std::vector<float> x = kernels::RandomFloats(d, 3);
    std::vector<float> y = x;
    RotateHadamard(absl::MakeSpan(y));
    double before = 0, after = 0;
    for (int i = 0; i < d; ++i) {
      before += double{x[i]} * x[i];
      after += double{y[i]} * y[i];
    }
    EXPECT_NEAR(after, before, 1e-5 * before);
    RotateHadamard(absl::MakeSpan(y));
    // 2 log2 d additions of values below 4 or so.
    for (int i = 0; i < d; ++i) EXPECT_NEAR(y[i], x[i], 2e-6);
  }
  // Element (i, j) of the matrix is (-1)^popcount(i & j) / sqrt(d).
  std::vector<float> unit(16, 0.0f);
  unit[5] = 4;
  RotateHadamard(absl::MakeSpan(unit));
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(unit[i], __builtin_popcount(i & 5) % 2 == 0 ? 1.0f : -1.0f);
  }
}

// Rotated, a key of one outlier is spread evenly, which is what the rotation is
// for: every code is -127 or 127 and the key survives unchanged.
TEST(Int8ActivationsTest, AKeyOfOneOutlierIsExact) {
  std::vector<float> key(256, 0.0f);
  key[77] = 127;
  FakeQuantizeKey(absl::MakeSpan(key));
  for (size_t i = 0; i < key.size(); ++i) {
    EXPECT_FLOAT_EQ(key[i], i == 77 ? 127.0f : 0.0f);
  }
}

// An orthonormal rotation keeps the length of the error: at most half a step
// in each of d elements.
TEST(Int8ActivationsTest, AKeysErrorIsThatOfItsRotatedCodes) {
  const std::vector<float> key = kernels::RandomFloats(256, 4);
  std::vector<float> rotated = key, fake = key;
  RotateHadamard(absl::MakeSpan(rotated));
  int8_t codes[256];
  const float scale = QuantizeInt8(rotated, codes);
  FakeQuantizeKey(absl::MakeSpan(fake));
  double expected = 0, error = 0;
  for (size_t i = 0; i < key.size(); ++i) {
    expected += std::pow(rotated[i] - codes[i] * scale, 2);
    error += std::pow(fake[i] - key[i], 2);
  }
  EXPECT_GT(expected, 0);
  EXPECT_NEAR(error, expected, 1e-3 * expected);
}

}  // namespace
}  // namespace onegrid::quant
