// Goal: packed weights are those of the file, in as many bytes; blocks that
// can't be right are refused with what is wrong.
#include "kernels/cpu/packed_linear.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/linear_testing.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid.h"
#include "kernels/quant/grid_blocks.h"

namespace onegrid::cpu {
namespace {

using kernels::ThreadPool;

class PackedLinearTest : public testing::TestWithParam<const quant::Grid*> {
 protected:
  const quant::Grid& grid_ = *GetParam();
  const quant::GgmlType type_ = quant::BlockType(grid_);
  ThreadPool pool_{2};
};

TEST_P(PackedLinearTest, RowsAreThoseOfTheFile) {
  const int64_t n = 33, k = 192;
  const quant::GridMatrix w = Random(grid_, n, k, 6);
  const PackedLinear packed = Pack(w, pool_);
  EXPECT_EQ(packed.elements(), n * k);
  std::vector<float> row(static_cast<size_t>(k));
  for (int64_t r = 0; r < n; ++r) {
    packed.DequantizeRow(r, absl::MakeSpan(row));
    for (int64_t i = 0; i < k; ++i) {
      const size_t at = static_cast<size_t>(r * k + i);
      EXPECT_EQ(row[static_cast<size_t>(i)],
                static_cast<float>(w.codes[at]) *
                    w.scales[at / static_cast<size_t>(grid_.group)]);
    }
  }
}

// Nothing is expanded: as many bytes as the file's, but for whole tiles.
TEST_P(PackedLinearTest, TakesTheBytesOfTheFile) {
  const int64_t k = 192;
  EXPECT_EQ(Pack(Random(grid_, 19, k, 6), pool_).bytes(),
            *quant::RowBytes(type_, 32 * k));
}

TEST_P(PackedLinearTest, TellsOfEveryBlockOnceWhenItIsPacked) {
  const int64_t n = 1000, k = 64;
  const std::vector<uint8_t> blocks = Blocks(Random(grid_, n, k, 1));
  std::vector<std::atomic<int>> told(blocks.size());
  ASSERT_TRUE(PackedLinear::FromBlocks(
                  type_, blocks, n, k, pool_,
                  [&](absl::Span<const uint8_t> part) {
                    for (const uint8_t& byte : part) {
                      ++told[static_cast<size_t>(&byte - blocks.data())];
                    }
                  })
                  .ok());
  for (const std::atomic<int>& count : told) ASSERT_EQ(count, 1);
}

TEST_P(PackedLinearTest, ScalesThatAreNotFiniteAreInvalidArguments) {
  const int64_t n = 40, k = 128;
  std::vector<uint8_t> blocks = Blocks(Random(grid_, n, k, 1));
  const size_t row_blocks = static_cast<size_t>(k / grid_.group);
  const size_t last = 40 * row_blocks - 1;
  blocks[blocks.size() / (40 * row_blocks) * last + 1] |= 0x7C;
  const absl::Status status =
      PackedLinear::FromBlocks(type_, blocks, n, k, pool_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("block " + std::to_string(last)),
            absl::string_view::npos)
      << status;
}

TEST_P(PackedLinearTest, WrongSizesAreInvalidArguments) {
  const std::vector<uint8_t> blocks(1000);
  const int64_t group = grid_.group;
  for (auto [n, k] : {std::pair<int64_t, int64_t>{0, group},
                      {1, 0},
                      {1, group + 1},
                      {1, group},
                      {-1, group},
                      {int64_t{1} << 60, group}}) {
    EXPECT_EQ(
        PackedLinear::FromBlocks(type_, blocks, n, k, pool_).status().code(),
        absl::StatusCode::kInvalidArgument);
  }
}

INSTANTIATE_TEST_SUITE_P(Grids, PackedLinearTest, testing::ValuesIn(kGrids),
                         [](const auto& info) { return info.param->name; });

TEST(PackedLinearTypeTest, RowsOfBf16AreThoseOfTheFile) {
  ThreadPool pool(2);
  const int64_t n = 19, k = 96;
  std::vector<uint8_t> bytes;
  const std::vector<float> dense = RandomBf16(n * k, &bytes);
  const auto w =
      PackedLinear::FromBlocks(quant::GgmlType::kBF16, bytes, n, k, pool);
  ASSERT_TRUE(w.ok()) << w.status();
  EXPECT_EQ(w->bytes(), 32 * k * 2);
  std::vector<float> row(static_cast<size_t>(k));
  for (int64_t r = 0; r < n; ++r) {
    w->DequantizeRow(r, absl::MakeSpan(row));
    EXPECT_TRUE(std::equal(row.begin(), row.end(), dense.begin() + r * k));
  }
}

TEST(PackedLinearTypeTest, Bf16ThatIsNotFiniteIsAnInvalidArgument) {
  ThreadPool pool(2);
  for (const uint8_t high : {0x7F, 0xFF}) {
    std::vector<uint8_t> bytes(20 * 64 * 2);
    // The last element of block 3: infinity, of either sign.
    bytes[2 * (4 * 32 - 1)] = 0x80;
    bytes[2 * (4 * 32 - 1) + 1] = high;
    const absl::Status status =
        PackedLinear::FromBlocks(quant::GgmlType::kBF16, bytes, 20, 64, pool)
            .status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("value that is not finite, in block 3"),
              absl::string_view::npos)
        << status;
  }
}

TEST(PackedLinearTypeTest, OtherTypesAreUnimplemented) {
  ThreadPool pool(1);
  const std::vector<uint8_t> bytes(4 * 256);
  for (const auto type :
       {quant::GgmlType::kF32, quant::GgmlType::kF16, quant::GgmlType::kQ4_1,
        quant::GgmlType::kQ6_K, static_cast<quant::GgmlType>(41)}) {
    EXPECT_EQ(
        PackedLinear::FromBlocks(type, bytes, 1, 256, pool).status().code(),
        absl::StatusCode::kUnimplemented);
  }
}

}  // namespace
}  // namespace onegrid::cpu
