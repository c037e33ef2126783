#include "services/inference/packed_linear.h"

#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/quant/dequantize.h"

namespace onegrid::inference {
namespace {

using quant::GgmlType;

constexpr int64_t kN = 19, kK = 128;
constexpr GgmlType kTypes[] = {GgmlType::kQ4_0, GgmlType::kQ2_0,
                               GgmlType::kQ8_0};

// Blocks of random codes, all there are, and scales of both signs.
std::vector<uint8_t> RandomBlocks(GgmlType type) {
  const quant::GgmlTypeTraits traits = *quant::TraitsOf(type);
  std::vector<uint8_t> blocks(*quant::RowBytes(type, kN * kK));
  std::mt19937 random(static_cast<uint32_t>(type));
  for (uint8_t& byte : blocks) byte = static_cast<uint8_t>(random());
  for (size_t at = 1; at < blocks.size(); at += traits.block_bytes) {
    blocks[at] &= 0xBB;  // No f16 exponent of all ones: finite.
  }
  return blocks;
}

std::vector<float> Values(GgmlType type, const std::vector<uint8_t>& blocks) {
  std::vector<float> values(kN * kK);
  EXPECT_TRUE(quant::Dequantize(type, blocks, absl::MakeSpan(values)).ok());
  return values;
}

class PackedLinearTest : public testing::TestWithParam<GgmlType> {
 protected:
  // The kernel's weights, each by a product with a unit vector: sums of one
  // value and zeros, so exact.
  static std::vector<float> WeightsOf(const cpu::PackedInt2Linear& packed) {
    return WeightsOf(packed, cpu::Int2LinearF32);
  }
  static std::vector<float> WeightsOf(const cpu::PackedInt4Linear& packed) {
    return WeightsOf(packed, cpu::Int4LinearF32);
  }
  static std::vector<float> WeightsOf(const cpu::PackedInt8Linear& packed) {
    return WeightsOf(packed, cpu::Int8LinearF32);
  }
  template <typename Packed, typename Product>
  static std::vector<float> WeightsOf(const Packed& packed, Product product) {
    kernels::ThreadPool pool(1);
    std::vector<float> units(kK * kK), columns(kK * kN), weights(kN * kK);
    for (int64_t i = 0; i < kK; ++i) units[i * kK + i] = 1;
    product(units.data(), kK, packed, columns.data(), pool, kernels::BestIsa());
    for (int64_t n = 0; n < kN; ++n) {
      for (int64_t i = 0; i < kK; ++i) {
        weights[n * kK + i] = columns[i * kN + n];
      }
    }
    return weights;
  }

  kernels::ThreadPool pool_{2};
};

TEST_P(PackedLinearTest, LinearsKeepTheirValues) {
  const std::vector<uint8_t> blocks = RandomBlocks(GetParam());
  const auto packed = PackLinear(GetParam(), blocks, kN, kK, pool_);
  ASSERT_TRUE(packed.ok()) << packed.status();
  // Nothing is expanded: as many bytes as the file's, but for whole tiles.
  EXPECT_EQ(PackedBytes(*packed), *quant::RowBytes(GetParam(), 32 * kK));
  EXPECT_EQ(std::visit([](const auto& w) { return WeightsOf(w); }, *packed),
            Values(GetParam(), blocks));
}

TEST_P(PackedLinearTest, RowsKeepTheirValues) {
  const std::vector<uint8_t> blocks = RandomBlocks(GetParam());
  const std::vector<float> values = Values(GetParam(), blocks);
  const auto packed = PackLinear(GetParam(), blocks, kN, kK, pool_);
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_EQ(PackedElements(*packed), kN * kK);
  std::vector<float> row(kK);
  for (int64_t n = 0; n < kN; ++n) {
    DequantizeRow(*packed, n, absl::MakeSpan(row));
    for (int64_t i = 0; i < kK; ++i) EXPECT_EQ(row[i], values[n * kK + i]);
  }
}

TEST_P(PackedLinearTest, SizesAndScalesThatDoNotFitAreRefused) {
  std::vector<uint8_t> blocks = RandomBlocks(GetParam());
  const auto code = [&](int64_t n, int64_t k) {
    return PackLinear(GetParam(), blocks, n, k, pool_).status().code();
  };
  EXPECT_EQ(code(kN, kK), absl::StatusCode::kOk);
  EXPECT_EQ(code(kN, kK / 2), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(2 * kN, kK / 2 - 1), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(0, kK), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(-1, kK), absl::StatusCode::kInvalidArgument);
  blocks[1] = 0x7C;  // Infinity.
  EXPECT_EQ(code(kN, kK), absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Types, PackedLinearTest, testing::ValuesIn(kTypes),
                         [](const auto& info) {
                           return quant::TraitsOf(info.param)->name;
                         });

TEST(PackedLinearTypeTest, TypesOfNoGridAreUnimplemented) {
  kernels::ThreadPool pool(1);
  const std::vector<uint8_t> bytes(4 * 256);
  for (const auto type : {GgmlType::kF32, GgmlType::kBF16, GgmlType::kQ4_1,
                          GgmlType::kQ6_K, static_cast<GgmlType>(41)}) {
    EXPECT_EQ(PackLinear(type, bytes, 1, 256, pool).status().code(),
              absl::StatusCode::kUnimplemented);
  }
}

}  // namespace
}  // namespace onegrid::inference
