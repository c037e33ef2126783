#include "services/inference/prompt_lookup.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace onegrid::inference {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(LookUpContinuationTest, GoesOnAsTheSameTokensDidBefore) {
  EXPECT_THAT(LookUpContinuation({1, 2, 3, 4, 5, 9, 1, 2, 3}, 3),
              ElementsAre(4, 5, 9));
  EXPECT_THAT(LookUpContinuation({1, 2, 3, 4, 5, 9, 1, 2, 3}, 1),
              ElementsAre(4));
}

TEST(LookUpContinuationTest, PrefersLongMatchesThenLateOnes) {
  // 1 2 3 goes on with 4, the later 2 3 with 5.
  EXPECT_THAT(LookUpContinuation({1, 2, 3, 4, 7, 2, 3, 5, 1, 2, 3}, 1),
              ElementsAre(4));
  EXPECT_THAT(LookUpContinuation({2, 3, 4, 7, 2, 3, 5, 8, 2, 3}, 1),
              ElementsAre(5));
}

TEST(LookUpContinuationTest, FollowsARepetitionOfOneToken) {
  EXPECT_THAT(LookUpContinuation({5, 5, 5}, 4), ElementsAre(5));
  EXPECT_THAT(LookUpContinuation({5, 6, 5, 6, 5, 6}, 4), ElementsAre(5, 6));
}

TEST(LookUpContinuationTest, GuessesNothingWithoutTwoEqualTokens) {
  EXPECT_THAT(LookUpContinuation({}, 4), IsEmpty());
  EXPECT_THAT(LookUpContinuation({1}, 4), IsEmpty());
  EXPECT_THAT(LookUpContinuation({1, 1}, 4), IsEmpty());
  EXPECT_THAT(LookUpContinuation({1, 2, 3, 9, 3}, 4), IsEmpty());
  EXPECT_THAT(LookUpContinuation({1, 2, 1, 2}, 0), IsEmpty());
  EXPECT_THAT(LookUpContinuation({1, 2, 1, 2}, -1), IsEmpty());
}

}  // namespace
}  // namespace onegrid::inference
