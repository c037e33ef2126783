#include "kernels/quant/ct_int4.h"

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

class CtInt4GoldenTest : public testing::TestWithParam<Shape> {};

TEST_P(CtInt4GoldenTest, EqualsCompressedTensorsBothWays) {
  const auto [rows, cols] = GetParam();
  const std::string name =
      "ct_" + std::to_string(rows) + "x" + std::to_string(cols);
  const auto codes = ReadGolden<int8_t>(name + ".codes");
  const auto words = ReadGolden<int32_t>(name + ".words");
  const auto packed = PackCtInt4(codes, rows, cols);
  ASSERT_TRUE(packed.ok());
  EXPECT_EQ(*packed, words);
  const auto unpacked = UnpackCtInt4(words, rows, cols);
  ASSERT_TRUE(unpacked.ok());
  EXPECT_EQ(*unpacked, codes);
}

INSTANTIATE_TEST_SUITE_P(WholeAndPartWords, CtInt4GoldenTest,
                         testing::Values(Shape{9, 96}, Shape{5, 43}));

TEST(CtInt4Test, LayoutOfOneRow) {
  const std::vector<int8_t> codes = {-8, -7, -6, -5, 4, 5, 6, 7, 0};
  const auto words = PackCtInt4(codes, 1, 9);
  ASSERT_TRUE(words.ok());
  EXPECT_THAT(*words,
              ElementsAre(static_cast<int32_t>(0xfedc3210u), 0x00000008));
}

TEST(CtInt4Test, CodeOutOfRangeIsRefusedByPlace) {
  for (const int8_t code : {-9, 8, 127, -128}) {
    std::vector<int8_t> codes(64);
    codes[33] = code;
    const auto words = PackCtInt4(codes, 2, 32);
    EXPECT_EQ(words.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(words.status().message()),
                HasSubstr("row 1, column 1"));
  }
}

TEST(CtInt4Test, WrongSizesAreInvalidArgument) {
  const std::vector<int8_t> codes(64);
  const std::vector<int32_t> words(8);
  const int64_t huge = int64_t{1} << 62;
  for (const auto& [rows, cols] : {Shape{2, 33}, Shape{-2, -32}, Shape{huge, 4},
                                   Shape{4, huge}, Shape{3, 32}}) {
    EXPECT_FALSE(PackCtInt4(codes, rows, cols).ok()) << rows << "x" << cols;
    EXPECT_FALSE(UnpackCtInt4(words, rows, cols).ok()) << rows << "x" << cols;
  }
  EXPECT_TRUE(UnpackCtInt4(words, 2, 32).ok());
  EXPECT_TRUE(UnpackCtInt4(words, 2, 25).ok());
}

}  // namespace
}  // namespace onegrid::quant
