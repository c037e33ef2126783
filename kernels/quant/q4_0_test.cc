#include "kernels/quant/q4_0.h"

#include <cmath>
#include <cstddef>
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

std::vector<float> DecodeGguf(absl::Span<const uint8_t> blocks) {
  std::vector<float> out(blocks.size() / kQ4_0BlockBytes * kGroup);
  EXPECT_TRUE(Dequantize(GgmlType::kQ4_0, blocks, absl::MakeSpan(out)).ok());
  return out;
}

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
  auto matrix = EncodeMatrix(w, rows, cols, kInt4G32);
  EXPECT_TRUE(matrix.ok());
  return *matrix;
}

// One block, byte for byte: code i - 8 in elements 0..15, 7 - i in 16..31.
TEST(Q4_0Test, LayoutOfOneBlock) {
  GridMatrix matrix;
  matrix.rows = 1;
  matrix.cols = 32;
  matrix.scales = {0.5f};  // f16 0x3800
  for (int i = 0; i < 16; ++i) matrix.codes.push_back(i - 8);
  for (int i = 0; i < 16; ++i) matrix.codes.push_back(7 - i);
  const auto blocks = PackQ4_0(matrix);
  ASSERT_TRUE(blocks.ok());
  const std::vector<uint8_t> expected = {0x00, 0x38, 0xf0, 0xe1, 0xd2, 0xc3,
                                         0xb4, 0xa5, 0x96, 0x87, 0x78, 0x69,
                                         0x5a, 0x4b, 0x3c, 0x2d, 0x1e, 0x0f};
  EXPECT_EQ(*blocks, expected);
}

TEST(Q4_0Test, PackedGridDecodesAsGgufBitForBit) {
  const GridMatrix matrix = EncodedNormal(33, 96);
  const auto blocks = PackQ4_0(matrix);
  ASSERT_TRUE(blocks.ok());
  EXPECT_EQ(DecodeGguf(*blocks), Decode(matrix));
}

TEST(Q4_0Test, UnpackReturnsWhatWasPacked) {
  const GridMatrix matrix = EncodedNormal(3, 64);
  const auto blocks = PackQ4_0(matrix);
  ASSERT_TRUE(blocks.ok());
  const auto back = UnpackQ4_0(*blocks, 3, 64);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->rows, 3);
  EXPECT_EQ(back->cols, 64);
  EXPECT_EQ(back->codes, matrix.codes);
  EXPECT_EQ(back->scales, matrix.scales);
}

// Blocks of any file: scales that are negative, zero, subnormal or not
// dual-exact come through, decode the same and pack to the same bytes.
TEST(Q4_0Test, ForeignScalesAreKeptAsTheyAre) {
  const auto blocks = ReadGolden<uint8_t>("q4_0.blocks");
  const auto values = ReadGolden<float>("q4_0.values");
  const int64_t rows = static_cast<int64_t>(blocks.size()) / kQ4_0BlockBytes;
  const auto matrix = UnpackQ4_0(blocks, rows, 32);
  ASSERT_TRUE(matrix.ok());
  EXPECT_EQ(matrix->scales[0], 0.0f);
  EXPECT_EQ(matrix->scales[2], -1.5f);
  EXPECT_EQ(Decode(*matrix), values);
  const auto again = PackQ4_0(*matrix);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(*again, blocks);
}

TEST(Q4_0Test, ScaleThatF16CannotHoldIsRefusedByPlace) {
  for (const float scale :
       {0.1f, 1e-10f, 70000.0f, 3e38f, std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::quiet_NaN()}) {
    GridMatrix matrix = EncodedNormal(2, 64);
    matrix.scales[3] = scale;
    const auto blocks = PackQ4_0(matrix);
    EXPECT_EQ(blocks.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(blocks.status().message()),
                HasSubstr("row 1, group 1"));
  }
}

TEST(Q4_0Test, InvalidMatrixIsNotPacked) {
  GridMatrix matrix = EncodedNormal(1, 32);
  matrix.codes[0] = 8;
  EXPECT_EQ(PackQ4_0(matrix).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Q4_0Test, WrongSizesAndScalesAreNotUnpacked) {
  std::vector<uint8_t> blocks(36);
  EXPECT_TRUE(UnpackQ4_0(blocks, 2, 32).ok());
  EXPECT_TRUE(UnpackQ4_0(blocks, 1, 64).ok());
  EXPECT_FALSE(UnpackQ4_0(blocks, 1, 32).ok());
  EXPECT_FALSE(UnpackQ4_0(blocks, 4, 16).ok());
  EXPECT_FALSE(UnpackQ4_0(blocks, -1, 64).ok());
  EXPECT_FALSE(UnpackQ4_0(blocks, int64_t{1} << 60, 1024).ok());
  EXPECT_FALSE(UnpackQ4_0(absl::MakeConstSpan(blocks).subspan(1), 2, 32).ok());
  blocks[19] = 0x7c;  // Infinite scale in block 1.
  EXPECT_THAT(std::string(UnpackQ4_0(blocks, 2, 32).status().message()),
              HasSubstr("block 1"));
}

TEST(EncodeQ4_0Test, EqualsTheReferenceRuleBitForBit) {
  const auto w = ReadGolden<float>("encode.weights");
  const auto blocks = EncodeQ4_0(w, static_cast<int64_t>(w.size()) / 128, 128);
  ASSERT_TRUE(blocks.ok());
  EXPECT_EQ(*blocks, ReadGolden<uint8_t>("encode.q4_0"));
}

TEST(EncodeQ4_0Test, HostileWeights) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity(), 1e6f}) {
    std::vector<float> w(32, 0.25f);
    w[31] = bad;
    EXPECT_EQ(EncodeQ4_0(w, 1, 32).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_FALSE(EncodeQ4_0(std::vector<float>(32), 1, 31).ok());
  // Too small for a reciprocal: zeros, not undefined codes.
  std::vector<float> tiny(32, 0.0f);
  tiny[3] = 1e-44f;
  const auto blocks = EncodeQ4_0(tiny, 1, 32);
  ASSERT_TRUE(blocks.ok());
  for (const float v : DecodeGguf(*blocks)) EXPECT_EQ(v, 0.0f);
}

}  // namespace
}  // namespace onegrid::quant
