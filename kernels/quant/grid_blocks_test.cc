#include "kernels/quant/grid_blocks.h"

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace onegrid::quant {
namespace {

TEST(GridBlocksTest, EveryGridComesBackFromItsBlocks) {
  const struct {
    const Grid* grid;
    GgmlType type;
  } cases[] = {{&kInt4G32, GgmlType::kQ4_0},
               {&kInt2G64, GgmlType::kQ2_0},
               {&kInt8G32, GgmlType::kQ8_0}};
  for (const auto& [grid, type] : cases) {
    ASSERT_EQ(BlockType(*grid), type);
    ASSERT_EQ(*GridOfBlocks(type), grid);
    std::vector<float> w(3 * 128);
    for (size_t i = 0; i < w.size(); ++i) w[i] = 0.01f * (i % 23) - 0.1f;
    const auto matrix = EncodeMatrix(w, 3, 128, *grid);
    ASSERT_TRUE(matrix.ok()) << grid->name;
    const auto blocks = PackBlocks(*matrix);
    ASSERT_TRUE(blocks.ok()) << grid->name;
    EXPECT_EQ(static_cast<int64_t>(blocks->size()), 3 * *RowBytes(type, 128));
    const auto back = UnpackBlocks(type, *blocks, 3, 128);
    ASSERT_TRUE(back.ok()) << grid->name;
    EXPECT_EQ(back->grid, grid);
    EXPECT_EQ(back->codes, matrix->codes);
    EXPECT_EQ(back->scales, matrix->scales);
  }
}

TEST(GridBlocksTest, TypesWithoutAGridAreRefused) {
  for (const auto type : {GgmlType::kF32, GgmlType::kQ4_1, GgmlType::kQ6_K,
                          static_cast<GgmlType>(41)}) {
    EXPECT_EQ(UnpackBlocks(type, {}, 0, 0).status().code(),
              absl::StatusCode::kUnimplemented);
    EXPECT_FALSE(GridOfBlocks(type).ok());
  }
}

}  // namespace
}  // namespace onegrid::quant
