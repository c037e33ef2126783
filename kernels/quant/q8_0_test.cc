#include "kernels/quant/q8_0.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/quant/dequantize.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/golden_file.h"

namespace onegrid::quant {
namespace {

using ::testing::HasSubstr;

TEST(EncodeQ8_0Test, EqualsTheReferenceRuleBitForBit) {
  const auto w = ReadGolden<float>("encode.weights");
  const auto blocks = EncodeQ8_0(w, static_cast<int64_t>(w.size()) / 128, 128);
  ASSERT_TRUE(blocks.ok());
  EXPECT_EQ(*blocks, ReadGolden<uint8_t>("encode.q8_0"));
}

// Half a step of amax / 127, plus what f16 rounding of the scale moves the
// largest code: 127 * 2^-11 of a step (f16 subnormals left out).
TEST(EncodeQ8_0Test, ErrorStaysWithinHalfAStep) {
  const auto w = ReadGolden<float>("encode.weights");
  const auto rows = static_cast<int64_t>(w.size()) / 128;
  const auto blocks = EncodeQ8_0(w, rows, 128);
  ASSERT_TRUE(blocks.ok());
  std::vector<float> v(w.size());
  ASSERT_TRUE(Dequantize(GgmlType::kQ8_0, *blocks, absl::MakeSpan(v)).ok());
  const auto matrix = UnpackQ8_0(*blocks, rows, 128);
  ASSERT_TRUE(matrix.ok());
  double worst = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const float scale = matrix->scales[i / 32];
    if (scale < 0x1p-14f) continue;
    const double steps = std::fabs(double{w[i]} - v[i]) / scale;
    EXPECT_LE(steps, 0.5 + 127 * 0x1p-11 + 1e-6);
    worst = std::max(worst, steps);
  }
  EXPECT_GT(worst, 0.49);
}

TEST(EncodeQ8_0Test, HostileWeights) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity(), 1e7f}) {
    std::vector<float> w(64, 0.25f);
    w[40] = bad;
    const auto blocks = EncodeQ8_0(w, 1, 64);
    EXPECT_EQ(blocks.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(blocks.status().message()), HasSubstr("32..63"));
  }
  EXPECT_FALSE(EncodeQ8_0(std::vector<float>(32), 1, 33).ok());
  std::vector<float> tiny(32, 0.0f);
  tiny[3] = 1e-44f;
  const auto blocks = EncodeQ8_0(tiny, 1, 32);
  ASSERT_TRUE(blocks.ok());
  EXPECT_EQ(*blocks, std::vector<uint8_t>(34, 0));
}

TEST(Q8_0Test, UnpackAndPackReturnTheBlocks) {
  const auto blocks = ReadGolden<uint8_t>("q8_0.blocks");
  const auto values = ReadGolden<float>("q8_0.values");
  const int64_t rows = static_cast<int64_t>(blocks.size()) / kQ8_0BlockBytes;
  const auto matrix = UnpackQ8_0(blocks, rows, 32);
  ASSERT_TRUE(matrix.ok());
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(static_cast<float>(matrix->codes[i]) * matrix->scales[i / 32],
              values[i]);
  }
  const auto again = PackQ8_0(*matrix);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(*again, blocks);
}

TEST(Q8_0Test, WhatDoesNotFitIsInvalidArgument) {
  GridMatrix matrix;
  matrix.rows = 1;
  matrix.cols = 32;
  matrix.codes.assign(32, -128);
  matrix.scales = {0.1f};  // Not exact in f16.
  EXPECT_EQ(PackQ8_0(matrix).status().code(),
            absl::StatusCode::kInvalidArgument);
  matrix.scales = {0.5f};
  EXPECT_TRUE(PackQ8_0(matrix).ok());
  matrix.codes.pop_back();
  EXPECT_FALSE(PackQ8_0(matrix).ok());
  std::vector<uint8_t> blocks(68);
  EXPECT_TRUE(UnpackQ8_0(blocks, 2, 32).ok());
  EXPECT_FALSE(UnpackQ8_0(blocks, 2, 64).ok());
  EXPECT_FALSE(UnpackQ8_0(blocks, 4, 16).ok());
  blocks[35] = 0x7e;  // NaN scale in block 1.
  EXPECT_FALSE(UnpackQ8_0(blocks, 2, 32).ok());
}

}  // namespace
}  // namespace onegrid::quant
