#include "kernels/quant/dequantize.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/golden_file.h"

namespace onegrid::quant {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct GoldenCase {
  GgmlType type;
  const char* name;
};

class DequantizeGoldenTest : public testing::TestWithParam<GoldenCase> {};

TEST_P(DequantizeGoldenTest, EqualsTheFormatsOwnCodeBitForBit) {
  const std::string name = GetParam().name;
  const auto blocks = ReadGolden<uint8_t>(name + ".blocks");
  const auto expected = ReadGolden<float>(name + ".values");
  std::vector<float> found(expected.size());
  ASSERT_TRUE(Dequantize(GetParam().type, blocks, absl::MakeSpan(found)).ok());
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_EQ(std::memcmp(&found[i], &expected[i], sizeof(float)), 0)
        << "element " << i << ": " << found[i] << " not " << expected[i];
  }
}

// The golden comparison would see an error in the use of any bit of a block:
// flipping it in every block changes an element. (In one block alone it may
// not: a sub-block whose scale happens to be zero hides its codes.)
TEST_P(DequantizeGoldenTest, EveryFlippedBitShows) {
  const absl::StatusOr<GgmlTypeTraits> traits = TraitsOf(GetParam().type);
  ASSERT_TRUE(traits.ok());
  const std::string name = GetParam().name;
  auto blocks = ReadGolden<uint8_t>(name + ".blocks");
  const auto expected = ReadGolden<float>(name + ".values");
  std::vector<float> found(expected.size());
  const auto flip = [&](int64_t bit) {
    for (size_t begin = 0; begin < blocks.size();
         begin += traits->block_bytes) {
      blocks[begin + bit / 8] ^= 1 << (bit % 8);
    }
  };
  for (int64_t bit = 0; bit < 8 * traits->block_bytes; ++bit) {
    flip(bit);
    ASSERT_TRUE(
        Dequantize(GetParam().type, blocks, absl::MakeSpan(found)).ok());
    EXPECT_NE(found, expected) << "bit " << bit;
    flip(bit);
  }
}

TEST_P(DequantizeGoldenTest, WrongSizesAreInvalidArgument) {
  const auto blocks =
      ReadGolden<uint8_t>(std::string(GetParam().name) + ".blocks");
  const auto values =
      ReadGolden<float>(std::string(GetParam().name) + ".values");
  const absl::Span<const uint8_t> src(blocks);
  std::vector<float> dst(values.size());
  for (const auto& bad :
       {src.subspan(1), src.subspan(0, src.size() - 1), src.subspan(0, 0)}) {
    EXPECT_EQ(Dequantize(GetParam().type, bad, absl::MakeSpan(dst)).code(),
              absl::StatusCode::kInvalidArgument);
  }
  dst.pop_back();
  EXPECT_EQ(Dequantize(GetParam().type, src, absl::MakeSpan(dst)).code(),
            absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(
    AllBlockTypes, DequantizeGoldenTest,
    testing::Values(GoldenCase{GgmlType::kQ4_0, "q4_0"},
                    GoldenCase{GgmlType::kQ4_1, "q4_1"},
                    GoldenCase{GgmlType::kQ5_0, "q5_0"},
                    GoldenCase{GgmlType::kQ5_1, "q5_1"},
                    GoldenCase{GgmlType::kQ8_0, "q8_0"},
                    GoldenCase{GgmlType::kQ4_K, "q4_k"},
                    GoldenCase{GgmlType::kQ5_K, "q5_k"},
                    GoldenCase{GgmlType::kQ6_K, "q6_k"},
                    GoldenCase{GgmlType::kQ2_0, "q2_0"},
                    GoldenCase{GgmlType::kQ2_K, "q2_k"},
                    GoldenCase{GgmlType::kQ3_K, "q3_k"},
                    GoldenCase{GgmlType::kIQ4_NL, "iq4_nl"},
                    GoldenCase{GgmlType::kIQ4_XS, "iq4_xs"},
                    GoldenCase{GgmlType::kTQ1_0, "tq1_0"},
                    GoldenCase{GgmlType::kTQ2_0, "tq2_0"},
                    GoldenCase{GgmlType::kMXFP4, "mxfp4"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(DequantizeTest, PlainFloatsKeepTheirValue) {
  // 1.0, -2.5 and 2^-24 (the smallest f16), as each type's bytes.
  const std::vector<uint8_t> f32 = {0,    0,    0x80, 0x3f, 0,    0,
                                    0x20, 0xc0, 0,    0,    0x80, 0x33};
  const std::vector<uint8_t> f16 = {0x00, 0x3c, 0x00, 0xc1, 0x01, 0x00};
  const std::vector<uint8_t> bf16 = {0x80, 0x3f, 0x20, 0xc0, 0x80, 0x33};
  std::vector<float> y(3);
  ASSERT_TRUE(Dequantize(GgmlType::kF32, f32, absl::MakeSpan(y)).ok());
  EXPECT_THAT(y, ElementsAre(1.0f, -2.5f, 0x1p-24f));
  ASSERT_TRUE(Dequantize(GgmlType::kF16, f16, absl::MakeSpan(y)).ok());
  EXPECT_THAT(y, ElementsAre(1.0f, -2.5f, 0x1p-24f));
  ASSERT_TRUE(Dequantize(GgmlType::kBF16, bf16, absl::MakeSpan(y)).ok());
  EXPECT_THAT(y, ElementsAre(1.0f, -2.5f, 0x1p-24f));
}

TEST(DequantizeTest, NonFiniteScaleGivesNonFiniteElements) {
  std::vector<uint8_t> block(34, 1);
  block[0] = 0x00;
  block[1] = 0x7e;  // f16 NaN
  std::vector<float> y(32);
  ASSERT_TRUE(Dequantize(GgmlType::kQ8_0, block, absl::MakeSpan(y)).ok());
  EXPECT_TRUE(std::isnan(y[0]));
}

TEST(DequantizeTest, Mxfp4OverflowsAtItsLargestExponents) {
  std::vector<uint8_t> block(17, 0x71);  // codes 0.5 (low) and 6 (high)
  std::vector<float> y(32);
  block[0] = 0;
  ASSERT_TRUE(Dequantize(GgmlType::kMXFP4, block, absl::MakeSpan(y)).ok());
  EXPECT_EQ(y[0], 0x1p-128f);
  EXPECT_EQ(y[16], 12 * 0x1p-128f);
  block[0] = 255;
  ASSERT_TRUE(Dequantize(GgmlType::kMXFP4, block, absl::MakeSpan(y)).ok());
  EXPECT_EQ(y[0], 0x1p127f);
  EXPECT_TRUE(std::isinf(y[16]));
}

// One block of zero bytes decodes for each type that has traits, and no type
// without traits decodes.
TEST(DequantizeTest, EveryKnownTypeHasADecoder) {
  int known = 0;
  for (uint32_t id = 0; id < 64; ++id) {
    const auto type = static_cast<GgmlType>(id);
    const absl::StatusOr<GgmlTypeTraits> traits = TraitsOf(type);
    if (!traits.ok()) continue;
    ++known;
    const std::vector<uint8_t> block(traits->block_bytes);
    std::vector<float> y(traits->block_elements, 1.0f);
    EXPECT_TRUE(Dequantize(type, block, absl::MakeSpan(y)).ok())
        << traits->name;
  }
  EXPECT_EQ(known, 19);
}

TEST(DequantizeTest, NothingDecodesToNothing) {
  EXPECT_TRUE(Dequantize(GgmlType::kQ4_K, {}, {}).ok());
}

TEST(GgmlTypesTest, UnknownTypeIsUnimplementedAndNamed) {
  // 8 + 1 is Q8_1, which never lies in a file; 41 is Q1_0.
  for (const uint32_t id : {4u, 9u, 41u, 43u, 0xffffffffu}) {
    const absl::Status status = TraitsOf(static_cast<GgmlType>(id)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(id)));
    float y = 0;
    EXPECT_EQ(
        Dequantize(static_cast<GgmlType>(id), {}, absl::MakeSpan(&y, 1)).code(),
        absl::StatusCode::kUnimplemented);
  }
}

TEST(GgmlTypesTest, RowBytesCountsWholeBlocks) {
  EXPECT_EQ(*RowBytes(GgmlType::kQ4_0, 640), 360);
  EXPECT_EQ(*RowBytes(GgmlType::kQ6_K, 512), 420);
  EXPECT_EQ(*RowBytes(GgmlType::kTQ1_0, 512), 108);
  EXPECT_EQ(*RowBytes(GgmlType::kMXFP4, 64), 34);
  EXPECT_EQ(*RowBytes(GgmlType::kF32, 3), 12);
  EXPECT_EQ(*RowBytes(GgmlType::kQ8_0, 0), 0);
}

TEST(GgmlTypesTest, RowBytesRefusesPartBlocksAndOverflow) {
  const int64_t max = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(RowBytes(GgmlType::kQ4_K, 255).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(RowBytes(GgmlType::kQ4_0, -32).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(RowBytes(GgmlType::kF32, max).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(RowBytes(GgmlType::kQ8_0, max / 32 * 32).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace onegrid::quant
