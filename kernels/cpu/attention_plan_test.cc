#include "kernels/cpu/attention_plan.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "kernels/cpu/attention_kernels.h"

namespace onegrid::cpu {
namespace {

constexpr AttentionLayout kShape = {
    .kv_heads = 2, .group = 4, .window = 0, .block_rows = 12};

TEST(AttentionLayout, FirstKeyIsTheFirstOfTheWindow) {
  AttentionLayout shape = kShape;
  EXPECT_EQ(shape.FirstKey(1000), 0);
  shape.window = 512;
  EXPECT_EQ(shape.FirstKey(0), 0);
  EXPECT_EQ(shape.FirstKey(511), 0);
  EXPECT_EQ(shape.FirstKey(512), 1);
  EXPECT_EQ(shape.FirstKey(1000), 489);
}

TEST(AttentionPlan, CutsRowsOfEachHeadIntoBlocks) {
  AttentionPlan plan(kShape);
  plan.Add(100, 5);  // 20 rows of each of two heads.
  ASSERT_EQ(plan.blocks().size(), 4u);
  for (int head = 0; head < 2; ++head) {
    const AttentionBlock& first = plan.blocks()[static_cast<size_t>(2 * head)];
    const AttentionBlock& last =
        plan.blocks()[static_cast<size_t>(2 * head + 1)];
    EXPECT_EQ(first.item, 0);
    EXPECT_EQ(first.kv_head, head);
    EXPECT_EQ(first.first_row, 0);
    EXPECT_EQ(first.rows, 12);
    EXPECT_EQ(last.kv_head, head);
    EXPECT_EQ(last.first_row, 12);
    EXPECT_EQ(last.rows, 8);
    EXPECT_EQ(first.first_page, 0);
    EXPECT_EQ(first.end_page, 2);
  }
}

TEST(AttentionPlan, SeesThePagesOfItsRowsOnly) {
  AttentionLayout shape = kShape;
  shape.window = kPageTokens;
  AttentionPlan plan(shape);
  plan.Add(10 * kPageTokens + 62, 3);  // The last is the first of page 11.
  const AttentionBlock& block = plan.blocks()[0];
  EXPECT_EQ(block.first_page, 9);
  EXPECT_EQ(block.end_page, 12);
}

// Parts begin at multiples of kPartPages of the sequence, wherever a window
// does, so that a token's bits are those that it has in any company.
TEST(AttentionPlan, PartsCoverABlocksPagesInOrder) {
  AttentionLayout shape = kShape;
  shape.window = 512;
  AttentionPlan plan(shape);
  plan.Add(0, 1);
  plan.Add(1234, 7);
  plan.Add(8191, 1);
  size_t at = 0;
  for (size_t b = 0; b < plan.blocks().size(); ++b) {
    const AttentionBlock& block = plan.blocks()[b];
    EXPECT_EQ(block.first_part, static_cast<int64_t>(at));
    EXPECT_GT(block.parts, 0);
    int64_t page = block.first_page;
    for (int64_t i = 0; i < block.parts; ++i, ++at) {
      const AttentionPart& part = plan.parts()[at];
      EXPECT_EQ(part.block, static_cast<int64_t>(b));
      EXPECT_EQ(part.first_page, page);
      EXPECT_LE(part.end_page, part.first_page / kPartPages * kPartPages +
                                   int64_t{kPartPages});
      EXPECT_TRUE(part.end_page % kPartPages == 0 ||
                  part.end_page == block.end_page);
      page = part.end_page;
    }
    EXPECT_EQ(page, block.end_page);
  }
  EXPECT_EQ(at, plan.parts().size());
  EXPECT_EQ(plan.blocks().back().item, 2);
}

TEST(AttentionPlan, NoQueriesMakeNoBlocksButCountAsAnItem) {
  AttentionPlan plan(kShape);
  plan.Add(5, 0);
  EXPECT_TRUE(plan.blocks().empty());
  plan.Add(5, 1);
  EXPECT_EQ(plan.blocks()[0].item, 1);
}

}  // namespace
}  // namespace onegrid::cpu
