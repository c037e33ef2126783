#include "kernels/base/float_types.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "gtest/gtest.h"

namespace onegrid::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// The value of a 16-bit pattern by its definition, in double.
double ValueOf(uint16_t bits, int exponent_bits, int fraction_bits) {
  const int exponent_max = (1 << exponent_bits) - 1;
  const int exponent = (bits >> fraction_bits) & exponent_max;
  const int fraction = bits & ((1 << fraction_bits) - 1);
  const int bias = exponent_max >> 1;
  const double sign = bits & 0x8000u ? -1.0 : 1.0;
  if (exponent == exponent_max) {
    return fraction != 0 ? std::numeric_limits<double>::quiet_NaN()
                         : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent == 0) {
    return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
  }
  return sign * std::ldexp((1 << fraction_bits) + fraction,
                           exponent - bias - fraction_bits);
}

// Every pattern widens to its value and narrows back to itself.
template <float (*kWiden)(uint16_t), uint16_t (*kNarrow)(float)>
void ExpectEveryPatternRoundTrips(int exponent_bits, int fraction_bits) {
  for (uint32_t i = 0; i <= 0xffffu; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const double expected = ValueOf(bits, exponent_bits, fraction_bits);
    const float found = kWiden(bits);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(found)) << i;
      ASSERT_TRUE(std::isnan(kWiden(kNarrow(found)))) << i;
      continue;
    }
    ASSERT_EQ(found, expected) << i;
    ASSERT_EQ(std::signbit(found), std::signbit(expected)) << i;
    ASSERT_EQ(kNarrow(found), bits) << i;
  }
}

// Between neighbours: the midpoint goes to the even pattern, a hair beside it
// to the nearer one. Midpoints are exact floats in both formats (bf16 keeps 8
// of 24 bits, f16 11, and f16's smallest midpoint is 2^-25).
template <float (*kWiden)(uint16_t), uint16_t (*kNarrow)(float)>
void ExpectNearestEven(uint16_t largest_finite) {
  for (uint32_t i = 0; i < largest_finite; ++i) {
    const auto low = static_cast<uint16_t>(i);
    const auto high = static_cast<uint16_t>(i + 1);
    const auto middle =
        static_cast<float>((double{kWiden(low)} + double{kWiden(high)}) / 2);
    ASSERT_EQ(kNarrow(middle), i % 2 == 0 ? low : high) << i;
    ASSERT_EQ(kNarrow(std::nextafter(middle, 0.0f)), low) << i;
    ASSERT_EQ(kNarrow(std::nextafter(middle, kInf)), high) << i;
    ASSERT_EQ(kNarrow(-middle), (i % 2 == 0 ? low : high) | 0x8000) << i;
  }
}

TEST(FloatTypesTest, EveryBf16PatternRoundTrips) {
  ExpectEveryPatternRoundTrips<Bf16ToFloat, FloatToBf16>(8, 7);
}

TEST(FloatTypesTest, EveryF16PatternRoundTrips) {
  ExpectEveryPatternRoundTrips<F16ToFloat, FloatToF16>(5, 10);
}

TEST(FloatTypesTest, Bf16RoundsToNearestEven) {
  ExpectNearestEven<Bf16ToFloat, FloatToBf16>(0x7f7f);
}

TEST(FloatTypesTest, F16RoundsToNearestEven) {
  ExpectNearestEven<F16ToFloat, FloatToF16>(0x7bff);
}

TEST(FloatTypesTest, TooLargeBecomesInfinity) {
  EXPECT_EQ(FloatToF16(65519.996f), 0x7bff);  // The last that rounds down.
  EXPECT_EQ(FloatToF16(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToF16(-1e30f), 0xfc00);
  EXPECT_EQ(FloatToBf16(std::numeric_limits<float>::max()), 0x7f80);
}

TEST(FloatTypesTest, NanOfAnyPayloadStaysNan) {
  for (const uint32_t bits : {0x7f800001u, 0x7fc00000u, 0xffffffffu}) {
    const float nan = std::bit_cast<float>(bits);
    EXPECT_TRUE(std::isnan(Bf16ToFloat(FloatToBf16(nan))));
    EXPECT_TRUE(std::isnan(F16ToFloat(FloatToF16(nan))));
  }
}

}  // namespace
}  // namespace onegrid::kernels
