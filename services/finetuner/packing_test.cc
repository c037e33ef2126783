#include "services/finetuner/packing.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace onegrid::finetuner {
namespace {

TEST(PackingTest, LabelsAreTheCompletionAndNothingElse) {
  PackedSequence sequence;
  AppendSegment({{2, 10, 11, 12, 1}, {{3, 5}}}, 0, 100, &sequence);
  AppendSegment({{2, 20, 1}, {{1, 3}}}, 1, 100, &sequence);
  const std::vector<int32_t> expected = {kNoTarget, kNoTarget, 12, 1,
                                         kNoTarget, 20,        1,  kNoTarget};
  EXPECT_EQ(sequence.targets, expected);
  EXPECT_EQ(sequence.segment_starts, (std::vector<int64_t>{0, 5, 8}));
  EXPECT_EQ(sequence.label_count(), 4);
}

TEST(PackingTest, EachSpanIsPredictedFromTheTokenBeforeIt) {
  PackedSequence sequence;
  AppendSegment({{2, 10, 11, 12, 13, 14}, {{2, 3}, {4, 6}}}, 0, 100, &sequence);
  const std::vector<int32_t> whole = {kNoTarget, 11, kNoTarget,
                                      13,        14, kNoTarget};
  EXPECT_EQ(sequence.targets, whole);
  // A cut within a span, and one before the last span.
  AppendSegment({{2, 10, 11, 12, 13, 14}, {{2, 3}, {4, 6}}}, 1, 5, &sequence);
  AppendSegment({{2, 10, 11, 12, 13, 14}, {{2, 3}, {4, 6}}}, 2, 3, &sequence);
  EXPECT_EQ(sequence.label_count(), 3 + 2 + 1);
  EXPECT_EQ(sequence.targets.size(), sequence.tokens.size());
}

TEST(PackingTest, AnExampleThatIsTooLongIsCut) {
  PackedSequence sequence;
  AppendSegment({{2, 10, 11, 12, 1}, {{3, 5}}}, 0, 4, &sequence);
  EXPECT_EQ(sequence.size(), 4);
  EXPECT_EQ(sequence.label_count(), 1);
}

TEST(PackingTest, EveryExampleIsPackedOnceAndNothingOverflows) {
  std::vector<TokenizedExample> examples;
  for (int i = 0; i < 300; ++i) {
    examples.push_back(
        {std::vector<int32_t>(static_cast<size_t>(2 + (i * 37) % 61), 5), {}});
  }
  const std::vector<PackedSequence> packed =
      Pack(examples, ShuffledOrder(300, 7), 128);
  std::vector<int64_t> seen;
  int64_t tokens = 0;
  for (const PackedSequence& sequence : packed) {
    EXPECT_LE(sequence.size(), 128);
    tokens += sequence.size();
    seen.insert(seen.end(), sequence.examples.begin(), sequence.examples.end());
  }
  std::sort(seen.begin(), seen.end());
  ASSERT_EQ(seen.size(), 300u);
  for (int64_t i = 0; i < 300; ++i) EXPECT_EQ(seen[static_cast<size_t>(i)], i);
  // First fit leaves little room unused.
  EXPECT_GT(static_cast<double>(tokens),
            0.95 * 128 * static_cast<double>(packed.size()));
}

TEST(PackingTest, ShufflesBySeed) {
  EXPECT_EQ(ShuffledOrder(50, 1), ShuffledOrder(50, 1));
  EXPECT_NE(ShuffledOrder(50, 1), ShuffledOrder(50, 2));
  EXPECT_TRUE(ShuffledOrder(0, 1).empty());
}

TEST(PackingTest, BucketsHoldSegmentsOfSimilarLength) {
  PackedSequence sequence;
  for (const size_t length : {3, 40, 32, 33, 64, 65}) {
    AppendSegment({std::vector<int32_t>(length, 5), {}}, 0, 100, &sequence);
  }
  const std::vector<SegmentBucket> buckets = BucketSegments(sequence);
  ASSERT_EQ(buckets.size(), 3u);
  EXPECT_EQ(buckets[0].padded, 32);
  EXPECT_EQ(buckets[0].segments, (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(buckets[1].segments, (std::vector<int64_t>{1, 3, 4}));
  EXPECT_EQ(buckets[2].padded, 96);
}

}  // namespace
}  // namespace onegrid::finetuner
