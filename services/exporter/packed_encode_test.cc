#include "services/exporter/packed_encode.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/quant/grid.h"
#include "services/common/error_info.h"
#include "services/model/packed_matrix.h"

namespace onegrid::exporter {
namespace {

using model::PackedMatrix;
using ::testing::HasSubstr;

// Random codes from `min` on, dual-exact scales.
PackedMatrix Matrix(int bits, int64_t group, int64_t rows, int64_t cols,
                    int min) {
  std::mt19937 random(3);
  const int max = (1 << (bits - 1)) - 1;
  std::uniform_int_distribution<int> code(min, max);
  PackedMatrix matrix{rows, cols, bits, group, {}, {}};
  for (int64_t i = 0; i < rows * cols; ++i) {
    matrix.codes.push_back(static_cast<int8_t>(code(random)));
  }
  for (int64_t g = 0; g < rows * cols / group; ++g) {
    matrix.scales.push_back(
        std::ldexp(static_cast<float>(128 + random() % 128), -17));
  }
  return matrix;
}

const quant::Grid& GridFor(const PackedMatrix& matrix) {
  const bool ternary = std::find(matrix.codes.begin(), matrix.codes.end(),
                                 -2) == matrix.codes.end();
  return model::GridOfPacked(
      {matrix.rows, matrix.cols, matrix.bits, matrix.group}, ternary);
}

// The matrix is on `grid` with the file's codes and scales.
void ExpectVerbatim(const PackedMatrix& matrix, const quant::Grid& grid,
                    ScaleRule rule = ScaleRule::kDualExact) {
  const auto encoding = EncodePacked("m", matrix, GridFor(matrix), rule);
  ASSERT_TRUE(encoding.ok()) << encoding.status();
  EXPECT_EQ(encoding->matrix.grid, &grid);
  EXPECT_EQ(encoding->matrix.codes, matrix.codes);
  ASSERT_TRUE(quant::ValidateMatrix(encoding->matrix).ok());
  for (size_t g = 0; g < encoding->matrix.scales.size(); ++g) {
    EXPECT_EQ(encoding->matrix.scales[g],
              matrix.scales[g * grid.group / matrix.group]);
  }
  EXPECT_EQ(encoding->groups_kept, encoding->groups);
  EXPECT_EQ(encoding->recovery.on_grid, encoding->groups);
  EXPECT_EQ(encoding->recovery.snapped + encoding->recovery.fallback, 0);
  EXPECT_EQ(encoding->error_squares, 0);
  EXPECT_GT(encoding->weight_squares, 0);
}

TEST(PackedEncodeTest, DualExactScalesAndCodesAreKept) {
  ExpectVerbatim(Matrix(4, 32, 5, 96, -8), quant::kInt4G32);
  ExpectVerbatim(Matrix(8, 32, 5, 96, -127), quant::kInt8G32);
  ExpectVerbatim(Matrix(2, 64, 5, 128, -1), quant::kInt2G64);
}

TEST(PackedEncodeTest, AScaleOfMoreGroupsIsRepeated) {
  ExpectVerbatim(Matrix(4, 128, 3, 256, -8), quant::kInt4G32);
  ExpectVerbatim(Matrix(8, 96, 3, 96, -127), quant::kInt8G32);  // one a row
  ExpectVerbatim(Matrix(2, 128, 3, 128, -1), quant::kInt2G64);
}

TEST(PackedEncodeTest, TwoBitsThatAreNotTernaryGoToFour) {
  ExpectVerbatim(Matrix(2, 64, 3, 128, -2), quant::kInt4G32);
  ExpectVerbatim(Matrix(2, 32, 3, 96, -1), quant::kInt4G32);
}

TEST(PackedEncodeTest, AScaleOfElevenBitsMovesAndTheCodesStay) {
  PackedMatrix matrix = Matrix(4, 32, 2, 64, -8);
  matrix.scales[1] = 1025 * 0x1p-17f;  // f16, not bf16
  const auto encoding =
      EncodePacked("m", matrix, GridFor(matrix), ScaleRule::kDualExact);
  ASSERT_TRUE(encoding.ok()) << encoding.status();
  EXPECT_EQ(encoding->matrix.codes, matrix.codes);
  EXPECT_EQ(encoding->matrix.scales[1], 1024 * 0x1p-17f);
  EXPECT_EQ(encoding->matrix.scales[2], matrix.scales[2]);
  EXPECT_EQ(encoding->recovery.snapped, 1);
  EXPECT_EQ(encoding->recovery.on_grid, 4);
  EXPECT_EQ(encoding->groups_kept, 3);
  EXPECT_GT(encoding->error_squares, 0);
  // The embedding's is kept.
  ExpectVerbatim(matrix, quant::kInt4G32, ScaleRule::kF16);
}

TEST(PackedEncodeTest, ANegativeScaleTurnsIfTheCodesCan) {
  PackedMatrix matrix = Matrix(4, 32, 2, 64, -7);
  for (float& scale : matrix.scales) scale = -scale;
  matrix.codes[40] = -8;  // in the second group
  const auto encoding =
      EncodePacked("m", matrix, GridFor(matrix), ScaleRule::kDualExact);
  ASSERT_TRUE(encoding.ok()) << encoding.status();
  EXPECT_EQ(encoding->matrix.codes[0], -matrix.codes[0]);
  EXPECT_EQ(encoding->matrix.scales[0], -matrix.scales[0]);
  EXPECT_EQ(encoding->recovery.fallback, 1);
  EXPECT_EQ(encoding->groups_kept, 3);
  for (const float scale : encoding->matrix.scales) EXPECT_GT(scale, 0);
}

TEST(PackedEncodeTest, ZerosHaveTheSmallestScaleUnlessTheirsIsOnTheGrid) {
  PackedMatrix matrix = Matrix(8, 32, 1, 96, -127);
  std::fill_n(matrix.codes.begin(), 64, int8_t{0});
  matrix.scales[0] = 0;
  const auto encoding =
      EncodePacked("m", matrix, GridFor(matrix), ScaleRule::kDualExact);
  ASSERT_TRUE(encoding.ok()) << encoding.status();
  EXPECT_EQ(encoding->matrix.scales[0], quant::kMinScale);
  EXPECT_EQ(encoding->matrix.scales[1], matrix.scales[1]);
  EXPECT_EQ(encoding->groups_kept, 3);
}

TEST(PackedEncodeTest, WhatTheGridLacksIsEncodedAfresh) {
  PackedMatrix matrix = Matrix(8, 32, 1, 96, -100);
  matrix.codes[70] = -128;
  matrix.scales[0] = 0x1p-20f;  // below the smallest scale
  const auto encoding =
      EncodePacked("m", matrix, GridFor(matrix), ScaleRule::kDualExact);
  ASSERT_TRUE(encoding.ok()) << encoding.status();
  ASSERT_TRUE(quant::ValidateMatrix(encoding->matrix).ok());
  EXPECT_EQ(encoding->recovery.fallback, 2);
  EXPECT_EQ(encoding->recovery.on_grid, 1);
  // The value of the lost code is off by one step at most.
  const float w = -128 * matrix.scales[2];
  EXPECT_NEAR(encoding->matrix.codes[70] * encoding->matrix.scales[2], w,
              -w / 127);
}

TEST(PackedEncodeTest, GroupsThatAreNotTheGridsAreRefused) {
  for (const PackedMatrix& matrix :
       {Matrix(4, 16, 2, 64, -8), Matrix(8, 48, 2, 48, -8),
        Matrix(2, 16, 2, 32, -2)}) {
    const auto encoding =
        EncodePacked("blk.m", matrix, GridFor(matrix), ScaleRule::kDualExact);
    EXPECT_EQ(common::ErrorReason(encoding.status()), "UNSUPPORTED_TENSOR");
    EXPECT_THAT(std::string(encoding.status().message()), HasSubstr("blk.m"));
  }
}

TEST(PackedEncodeTest, AnAbsurdScaleIsRefused) {
  PackedMatrix matrix = Matrix(4, 32, 3, 64, -8);
  matrix.scales[3] = 1e30f;
  const auto encoding =
      EncodePacked("blk.m", matrix, GridFor(matrix), ScaleRule::kDualExact);
  EXPECT_EQ(common::ErrorReason(encoding.status()), "UNSUPPORTED_TENSOR");
  EXPECT_THAT(std::string(encoding.status().message()),
              HasSubstr("blk.m: row 1"));
  matrix.first_row = 100;  // of a larger matrix
  EXPECT_THAT(std::string(EncodePacked("blk.m", matrix, GridFor(matrix),
                                       ScaleRule::kDualExact)
                              .status()
                              .message()),
              HasSubstr("blk.m: row 101"));
  matrix.scales[3] = std::numeric_limits<float>::denorm_min();
  EXPECT_TRUE(
      EncodePacked("blk.m", matrix, GridFor(matrix), ScaleRule::kDualExact)
          .ok());
}

}  // namespace
}  // namespace onegrid::exporter
