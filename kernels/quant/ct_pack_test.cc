#include "kernels/quant/ct_pack.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/quant/golden_file.h"

namespace onegrid::quant {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Shape {
  int64_t rows;
  int64_t cols;
};

struct GoldenCase {
  const char* name;
  Shape shape;
  int bits;
};

class CtPackGoldenTest : public testing::TestWithParam<GoldenCase> {};

TEST_P(CtPackGoldenTest, EqualsCompressedTensorsBothWays) {
  const auto [name, shape, bits] = GetParam();
  const auto codes = ReadGolden<int8_t>(std::string(name) + ".codes");
  const auto words = ReadGolden<int32_t>(std::string(name) + ".words");
  const auto packed = PackCt(codes, shape.rows, shape.cols, bits);
  ASSERT_TRUE(packed.ok());
  EXPECT_EQ(*packed, words);
  const auto unpacked = UnpackCt(words, shape.rows, shape.cols, bits);
  ASSERT_TRUE(unpacked.ok());
  EXPECT_EQ(*unpacked, codes);
}

INSTANTIATE_TEST_SUITE_P(WholeAndPartWords, CtPackGoldenTest,
                         testing::Values(GoldenCase{"ct_9x96", {9, 96}, 4},
                                         GoldenCase{"ct_5x43", {5, 43}, 4},
                                         GoldenCase{"ct2_9x96", {9, 96}, 2},
                                         GoldenCase{"ct2_5x43", {5, 43}, 2},
                                         GoldenCase{"ct8_9x96", {9, 96}, 8},
                                         GoldenCase{"ct8_5x43", {5, 43}, 8}),
                         [](const auto& info) {
                           return std::string(info.param.name);
                         });

TEST(CtPackTest, LayoutOfOneRow) {
  const std::vector<int8_t> codes = {-8, -7, -6, -5, 4, 5, 6, 7, 0};
  const auto words = PackCt(codes, 1, 9, 4);
  ASSERT_TRUE(words.ok());
  EXPECT_THAT(*words,
              ElementsAre(static_cast<int32_t>(0xfedc3210u), 0x00000008));
  const std::vector<int8_t> ternary = {-1, 0, 1, -2};
  EXPECT_THAT(*PackCt(ternary, 1, 4, 2), ElementsAre(0b00'11'10'01));
  EXPECT_THAT(*PackCt(ternary, 1, 4, 8), ElementsAre(0x7e81807f));
}

TEST(CtPackTest, BitsOfTheGrids) {
  EXPECT_EQ(CodeBits(kInt2G64), 2);
  EXPECT_EQ(CodeBits(kInt4G32), 4);
  EXPECT_EQ(CodeBits(kInt8G32), 8);
}

TEST(CtPackTest, CodeOutOfRangeIsRefusedByPlace) {
  const struct {
    int8_t code;
    int bits;
  } cases[] = {{-9, 4}, {8, 4}, {127, 4}, {-128, 4}, {2, 2}, {-3, 2}};
  for (const auto& [code, bits] : cases) {
    std::vector<int8_t> codes(64);
    codes[33] = code;
    const auto words = PackCt(codes, 2, 32, bits);
    EXPECT_EQ(words.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(words.status().message()),
                HasSubstr("row 1, column 1"));
  }
}

TEST(CtPackTest, OtherBitsAreRefused) {
  for (const int bits : {-4, 0, 1, 3, 5, 16, 32}) {
    EXPECT_FALSE(PackCt({}, 0, 0, bits).ok()) << bits;
    EXPECT_FALSE(UnpackCt({}, 0, 0, bits).ok()) << bits;
  }
}

TEST(CtPackTest, WrongSizesAreInvalidArgument) {
  const std::vector<int8_t> codes(64);
  const std::vector<int32_t> words(8);
  const int64_t huge = int64_t{1} << 62;
  for (const auto& [rows, cols] : {Shape{2, 33}, Shape{-2, -32}, Shape{huge, 4},
                                   Shape{4, huge}, Shape{3, 32}}) {
    EXPECT_FALSE(PackCt(codes, rows, cols, 4).ok()) << rows << "x" << cols;
    EXPECT_FALSE(UnpackCt(words, rows, cols, 4).ok()) << rows << "x" << cols;
  }
  EXPECT_TRUE(UnpackCt(words, 2, 32, 4).ok());
  EXPECT_TRUE(UnpackCt(words, 2, 25, 4).ok());
  EXPECT_TRUE(UnpackCt(words, 2, 64, 2).ok());
  EXPECT_TRUE(UnpackCt(words, 2, 13, 8).ok());
}

}  // namespace
}  // namespace onegrid::quant
