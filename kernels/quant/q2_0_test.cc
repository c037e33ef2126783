#include "kernels/quant/q2_0.h"

#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/quant/dequantize.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/golden_file.h"
#include "kernels/quant/grid.h"

namespace onegrid::quant {
namespace {

using ::testing::HasSubstr;

std::vector<float> Decode(const GridMatrix& matrix) {
  std::vector<float> out(matrix.codes.size());
  DequantizeMatrix(matrix, absl::MakeSpan(out));
  return out;
}

GridMatrix EncodedNormal(int64_t rows, int64_t cols) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<float> w(rows * cols);
  for (float& v : w) v = normal(random);
  auto matrix = EncodeMatrix(w, rows, cols, kInt2G64);
  EXPECT_TRUE(matrix.ok());
  return *matrix;
}

// One block, byte for byte: the codes -1, 0, 1, 0 over and over.
TEST(Q2_0Test, LayoutOfOneBlock) {
  GridMatrix matrix{1, 64, {}, {0.5f}, &kInt2G64};  // f16 0x3800
  for (int i = 0; i < 16; ++i) {
    for (const int8_t code : {-1, 0, 1, 0}) matrix.codes.push_back(code);
  }
  matrix.codes[63] = 1;
  const auto blocks = PackQ2_0(matrix);
  ASSERT_TRUE(blocks.ok());
  std::vector<uint8_t> expected(18, 0b01'10'01'00);
  expected[0] = 0x00;
  expected[1] = 0x38;
  expected[17] = 0b10'10'01'00;
  EXPECT_EQ(*blocks, expected);
}

// The golden blocks are what llama.cpp's own encoder makes of these weights,
// ternary multiples of f16 scales, so it has only one choice.
TEST(Q2_0Test, PackEqualsLlamaCppBitForBit) {
  const auto weights = ReadGolden<float>("encode_q2_0.values");
  const auto expected = ReadGolden<uint8_t>("encode_q2_0.blocks");
  const int64_t rows = static_cast<int64_t>(weights.size()) / 128;
  const auto matrix = EncodeMatrix(weights, rows, 128, kInt2G64);
  ASSERT_TRUE(matrix.ok());
  EXPECT_EQ(Decode(*matrix), weights);
  const auto blocks = PackQ2_0(*matrix);
  ASSERT_TRUE(blocks.ok());
  EXPECT_EQ(*blocks, expected);
}

TEST(Q2_0Test, UnpackReturnsWhatWasPackedAndGgufReads) {
  const GridMatrix matrix = EncodedNormal(5, 192);
  const auto blocks = PackQ2_0(matrix);
  ASSERT_TRUE(blocks.ok());
  const auto back = UnpackQ2_0(*blocks, 5, 192);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->grid, &kInt2G64);
  EXPECT_EQ(back->rows, 5);
  EXPECT_EQ(back->cols, 192);
  EXPECT_EQ(back->codes, matrix.codes);
  EXPECT_EQ(back->scales, matrix.scales);
  std::vector<float> values(matrix.codes.size());
  ASSERT_TRUE(
      Dequantize(GgmlType::kQ2_0, *blocks, absl::MakeSpan(values)).ok());
  EXPECT_EQ(values, Decode(matrix));
}

// Blocks of any file: the code 2 and scales that are negative, zero or
// subnormal come through and decode as llama.cpp decodes them.
TEST(Q2_0Test, ForeignBlocksAreKeptAsTheyAre) {
  const auto blocks = ReadGolden<uint8_t>("q2_0.blocks");
  const auto matrix = UnpackQ2_0(
      blocks, static_cast<int64_t>(blocks.size()) / kQ2_0BlockBytes, 64);
  ASSERT_TRUE(matrix.ok());
  EXPECT_EQ(Decode(*matrix), ReadGolden<float>("q2_0.values"));
  EXPECT_THAT(std::string(PackQ2_0(*matrix).status().message()),
              HasSubstr("code 2"));
}

TEST(Q2_0Test, ScaleThatF16CannotHoldIsRefusedByPlace) {
  for (const float scale :
       {0.1f, 1e-10f, 70000.0f, std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::quiet_NaN()}) {
    GridMatrix matrix = EncodedNormal(2, 128);
    matrix.scales[3] = scale;
    const auto blocks = PackQ2_0(matrix);
    EXPECT_EQ(blocks.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(blocks.status().message()),
                HasSubstr("row 1, group 1"));
  }
}

TEST(Q2_0Test, OtherGridsAndInvalidMatricesAreNotPacked) {
  GridMatrix matrix = EncodedNormal(1, 64);
  matrix.codes[0] = 2;
  EXPECT_FALSE(PackQ2_0(matrix).ok());
  matrix.codes[0] = 0;
  EXPECT_TRUE(PackQ2_0(matrix).ok());
  matrix.grid = &kInt4G32;
  EXPECT_THAT(std::string(PackQ2_0(matrix).status().message()),
              HasSubstr("int4_g32"));
}

TEST(Q2_0Test, WrongSizesAndScalesAreNotUnpacked) {
  std::vector<uint8_t> blocks(36);
  EXPECT_TRUE(UnpackQ2_0(blocks, 2, 64).ok());
  EXPECT_TRUE(UnpackQ2_0(blocks, 1, 128).ok());
  EXPECT_FALSE(UnpackQ2_0(blocks, 1, 64).ok());
  EXPECT_FALSE(UnpackQ2_0(blocks, 4, 32).ok());
  EXPECT_FALSE(UnpackQ2_0(blocks, -1, 128).ok());
  EXPECT_FALSE(UnpackQ2_0(blocks, int64_t{1} << 60, 1024).ok());
  EXPECT_FALSE(UnpackQ2_0(absl::MakeConstSpan(blocks).subspan(1), 2, 64).ok());
  blocks[19] = 0x7c;  // Infinite scale in block 1.
  EXPECT_THAT(std::string(UnpackQ2_0(blocks, 2, 64).status().message()),
              HasSubstr("block 1"));
}

}  // namespace
}  // namespace onegrid::quant
