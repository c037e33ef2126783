#include "kernels/quant/int8_activations.h"

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace onegrid::quant {
namespace {

std::vector<float> RandomFloats(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(count));
  for (float& value : x) value = normal(random);
  return x;
}

TEST(Int8ActivationsTest, LargestMagnitudeIs127AndTiesGoToEven) {
  // A scale of exactly 1/2, so that the products are exact.
  std::vector<float> x = {-63.5f, 0.25f, 0.75f, -0.25f, -0.75f, 1.25f, 0, 63};
  std::vector<int8_t> codes(x.size());
  EXPECT_EQ(QuantizeInt8(x, codes.data()), 0.5f);
  EXPECT_EQ(codes, (std::vector<int8_t>{-127, 0, 2, 0, -2, 2, 0, 126}));
  std::vector<float> rest(x.size());
  Int8Rest(x, codes.data(), 0.5f, rest.data());
  EXPECT_EQ(rest,
            (std::vector<float>{0, 0.25f, -0.25f, -0.25f, 0.25f, 0.25f, 0, 0}));
}

TEST(Int8ActivationsTest, GroupsTooSmallForAnInverseBecomeZero) {
  std::vector<float> x(kActivationGroup, -1e-31f);
  std::vector<int8_t> codes(x.size(), 1);
  QuantizeInt8(x, codes.data());
  EXPECT_EQ(codes, std::vector<int8_t>(x.size(), 0));
  for (float amax : {0.0f, 1e-38f, 1e-30f}) {
    std::vector<float> one(kActivationGroup, amax), two = one;
    FakeQuantizeOneTerm(absl::MakeSpan(one));
    FakeQuantizeTwoTerms(absl::MakeSpan(two));
    for (float value : one) EXPECT_EQ(value, 0);
    for (float value : two) EXPECT_EQ(value, 0);
  }
}

TEST(Int8ActivationsTest, OneTermIsCodeTimesScaleGroupByGroup) {
  const std::vector<float> x = RandomFloats(96, 1);
  std::vector<float> fake = x;
  FakeQuantizeOneTerm(absl::MakeSpan(fake));
  for (size_t at = 0; at < x.size(); at += kActivationGroup) {
    int8_t codes[kActivationGroup];
    const float scale = QuantizeInt8(
        absl::MakeConstSpan(x).subspan(at, kActivationGroup), codes);
    for (int i = 0; i < kActivationGroup; ++i) {
      EXPECT_EQ(fake[at + i], codes[i] * scale);
    }
  }
}

// The second term is the rule applied to the rest.
TEST(Int8ActivationsTest, TwoTermsAreTheSumOfBothQuantizations) {
  const std::vector<float> x = RandomFloats(64, 2);
  std::vector<float> fake = x;
  FakeQuantizeTwoTerms(absl::MakeSpan(fake));
  for (size_t at = 0; at < x.size(); at += kActivationGroup) {
    const auto group = absl::MakeConstSpan(x).subspan(at, kActivationGroup);
    int8_t first[kActivationGroup], second[kActivationGroup];
    float rest[kActivationGroup];
    const float scale = QuantizeInt8(group, first);
    Int8Rest(group, first, scale, rest);
    const float rest_scale = QuantizeInt8(rest, second);
    for (int i = 0; i < kActivationGroup; ++i) {
      const float value = first[i] * scale + second[i] * rest_scale;
      EXPECT_EQ(fake[at + i], value);
      // Half a step of the second term, a 254th of the first's, and a few
      // roundings of values of up to 127 steps.
      EXPECT_NEAR(value, group[i], scale / 254 / 2 + 127 * scale * 0x1p-22f);
    }
  }
}

TEST(Int8ActivationsTest, HadamardIsItsOwnInverseAndKeepsLengths) {
  for (int d : {1, 2, 32, 128, 256, 512}) {
    const std::vector<float> x = RandomFloats(d, 3);
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
  const std::vector<float> key = RandomFloats(256, 4);
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
