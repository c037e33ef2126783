// Goal: a group's codes, read back, are the values but for what is left of
// them, and no coarser than half a step of a scale that covers them. Method:
// normal values, zeros, tiny and huge ones, against the layout's definition.
#include "kernels/cpu/int4_encoder.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/float_types.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/quant/grid.h"

namespace onegrid::cpu {
namespace {

struct Encoded {
  std::vector<float> taken, left;  // [32][16]
  std::vector<float> squares_taken, squares_left;
  std::vector<float> scales;
};

Encoded Encode(const std::vector<float>& values) {
  Encoded out;
  out.left = values;
  out.squares_taken.resize(kTileRows);
  out.squares_left.resize(kTileRows);
  std::vector<uint8_t> place(kInt4GroupBytes);
  EncodeInt4Group(out.left.data(), place.data(), out.squares_taken.data(),
                  out.squares_left.data());
  for (int r = 0; r < kTileRows; ++r) {
    uint16_t bits;
    std::memcpy(&bits, place.data() + kInt4GroupBytes - 32 + 2 * r, 2);
    out.scales.push_back(kernels::F16ToFloat(bits));
  }
  for (int k = 0; k < kLinearGroup; ++k) {
    for (int r = 0; r < kTileRows; ++r) {
      const int both = place[static_cast<size_t>(64 * (k / 8) + 4 * r + k % 4)];
      const int code = (k % 8 < 4 ? both & 15 : both >> 4) - 8;
      out.taken.push_back(static_cast<float>(code) *
                          out.scales[static_cast<size_t>(r)]);
    }
  }
  return out;
}

std::vector<float> Normal(float size) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, size);
  std::vector<float> values(kLinearGroup * kTileRows);
  for (float& value : values) value = normal(random);
  return values;
}

TEST(Int4EncoderTest, CodesAndWhatTheyLeaveAreTheValues) {
  for (const float size : {0.0f, 1e-9f, 0.02f, 1.0f, 1e4f}) {
    const std::vector<float> values = Normal(size);
    const Encoded encoded = Encode(values);
    for (size_t r = 0; r < kTileRows; ++r) {
      double taken = 0, left = 0;
      for (size_t i = r; i < values.size(); i += kTileRows) {
        EXPECT_EQ(values[i] - encoded.taken[i], encoded.left[i]);
        taken += double{encoded.taken[i]} * encoded.taken[i];
        left += double{encoded.left[i]} * encoded.left[i];
      }
      // Sums of 32 squares in floats.
      EXPECT_NEAR(encoded.squares_taken[r], taken, taken * 33 * 0x1p-24);
      EXPECT_NEAR(encoded.squares_left[r], left, left * 33 * 0x1p-24);
    }
  }
}

// With a scale of a 7.5th of the largest value none is off by more than half a
// step, but for the rounding of the scale; one that is chosen leaves no more.
TEST(Int4EncoderTest, LeavesNoMoreThanAScaleThatCoversAll) {
  const std::vector<float> values = Normal(1);
  const Encoded encoded = Encode(values);
  int smaller = 0;
  for (size_t r = 0; r < kTileRows; ++r) {
    float most = 0;
    for (size_t i = r; i < values.size(); i += kTileRows) {
      most = std::max(most, std::abs(values[i]));
    }
    const float scale = kernels::F16ToFloat(kernels::FloatToF16(most / 7.5f));
    double left = 0;
    for (size_t i = r; i < values.size(); i += kTileRows) {
      const float rest =
          values[i] -
          quant::RoundStepsF32(values[i] / scale, quant::kInt4G32) * scale;
      left += double{rest} * rest;
    }
    EXPECT_LE(encoded.squares_left[r], left * (1 + 1e-5));
    EXPECT_LE(encoded.scales[r], scale);
    smaller += encoded.scales[r] < scale;
  }
  EXPECT_GT(smaller, 4);
}

TEST(Int4EncoderTest, ValuesBeyondScalesAreLeftOver) {
  std::vector<float> values(kLinearGroup * kTileRows);
  values[5] = 1e30f;   // The largest scale is 65,280.
  values[6] = 1e-12f;  // The least 2^-14.
  const Encoded encoded = Encode(values);
  EXPECT_EQ(encoded.taken[5], 7 * quant::kMaxScale);
  EXPECT_EQ(encoded.taken[6], 0);
  EXPECT_EQ(encoded.left[6], 1e-12f);
}

}  // namespace
}  // namespace onegrid::cpu
