#include "services/inference/draft_policy.h"

#include "gtest/gtest.h"

namespace onegrid::inference {
namespace {

// A machine where a step takes `fixed` seconds and `each` more for each row.
StepCost Line(double fixed, double each) {
  StepCost cost;
  for (int i = 0; i < 20; ++i) {
    const int rows = 1 + i % 4;
    cost.Add(rows, fixed + each * rows);
  }
  return cost;
}

TEST(StepCostTest, IsTheLineThroughTheSteps) {
  const StepCost cost = Line(10, 3);
  EXPECT_NEAR(cost.Seconds(1), 13, 1e-9);
  EXPECT_NEAR(cost.Seconds(9), 37, 1e-9);
}

TEST(StepCostTest, GuessesARowsCostFromStepsOfOneSize) {
  StepCost cost;
  EXPECT_GT(cost.Seconds(2), cost.Seconds(1));
  for (int i = 0; i < 5; ++i) cost.Add(1, 8);
  EXPECT_NEAR(cost.Seconds(1), 8, 1e-9);
  EXPECT_NEAR(cost.Seconds(5), 12, 1e-9);
}

TEST(StepCostTest, FollowsAChange) {
  StepCost cost = Line(10, 3);
  for (int i = 0; i < 300; ++i) cost.Add(1 + i % 4, 2 + 1 * (1 + i % 4));
  EXPECT_NEAR(cost.Seconds(3), 5, 0.01);
}

TEST(StepCostTest, NeverFallsWithRowsNorBelowZero) {
  StepCost falling;
  falling.Add(1, 10);
  falling.Add(4, 5);
  EXPECT_LE(falling.Seconds(1), falling.Seconds(8));
  StepCost steep;
  steep.Add(2, 1);
  steep.Add(4, 9);
  EXPECT_GE(steep.Seconds(1), 0);
}

DraftRecord Record(int steps, int tried, int accepted) {
  DraftRecord record;
  for (int i = 0; i < steps; ++i) record.Add(tried, accepted);
  return record;
}

TEST(DraftRecordTest, CountsOnlyWhatAGuessShowed) {
  EXPECT_EQ(DraftRecord().acceptance(), 0.5);
  // One of four right: the third and fourth were never looked at.
  const DraftRecord half = Record(100, 4, 1);
  EXPECT_NEAR(half.acceptance(), 0.5, 0.01);
  EXPECT_GT(Record(100, 4, 4).acceptance(), 0.95);
  EXPECT_LT(Record(100, 4, 0).acceptance(), 0.1);
}

TEST(DraftRecordTest, GuessesFarWhereRowsAreFreeAndGuessesRight) {
  EXPECT_EQ(Record(50, 4, 4).Choose(8, 1, Line(10, 0.1)), 8);
  EXPECT_EQ(Record(50, 4, 4).Choose(3, 1, Line(10, 0.1)), 3);
}

TEST(DraftRecordTest, GuessesNothingWhereItDoesNotPay) {
  // A row costs as much as a step: nothing can be gained.
  EXPECT_EQ(Record(50, 4, 4).Choose(8, 1, Line(0, 10)), 0);
  // Rows are cheap, but guesses are wrong.
  EXPECT_EQ(Record(50, 4, 0).Choose(8, 1, Line(10, 2)), 0);
  EXPECT_EQ(Record(50, 4, 4).Choose(0, 1, Line(10, 0.1)), 0);
}

TEST(DraftRecordTest, AWrongRecordIsForgottenInTime) {
  const StepCost cost = Line(10, 1);
  DraftRecord record = Record(50, 4, 0);
  int steps = 0;
  while (record.Choose(4, 1, cost) == 0 && steps < 10000) ++steps;
  EXPECT_GT(steps, 20);
  EXPECT_LT(steps, 1000);
}

}  // namespace
}  // namespace onegrid::inference
