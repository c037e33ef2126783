#include "services/gateway/upstream_budget.h"

#include <gtest/gtest.h>

namespace onegrid::gateway {
namespace {

using Verdict = UpstreamBudget::Verdict;

class UpstreamBudgetTest : public testing::Test {
 protected:
  UpstreamBudget Budget(BudgetLimits limits) {
    return UpstreamBudget(limits, [this] { return now_; });
  }
  absl::Time now_ = absl::FromUnixSeconds(20000 * 86400);
};

TEST_F(UpstreamBudgetTest, WithoutLimitsAllIsGrantedAndCounted) {
  UpstreamBudget budget = Budget({});
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(budget.TryBegin({1000, 1000}), Verdict::kGranted);
    budget.End({1000, 1000}, {10, 5});
  }
  EXPECT_EQ(budget.totals().tokens.prompt, 10'000);
  EXPECT_EQ(budget.totals().tokens.completion, 5'000);
}

TEST_F(UpstreamBudgetTest, RequestsAreCountedInAnySixtySeconds) {
  BudgetLimits limits;
  limits.requests_per_minute = 2;
  UpstreamBudget budget = Budget(limits);
  EXPECT_EQ(budget.TryBegin({}), Verdict::kGranted);
  now_ += absl::Seconds(30);
  EXPECT_EQ(budget.TryBegin({}), Verdict::kGranted);
  EXPECT_EQ(budget.TryBegin({}), Verdict::kRequests);
  now_ += absl::Seconds(30);
  EXPECT_EQ(budget.TryBegin({}), Verdict::kGranted);
  EXPECT_EQ(budget.TryBegin({}), Verdict::kRequests);
}

TEST_F(UpstreamBudgetTest, ARequestThatWasNotMadeCountsNothing) {
  BudgetLimits limits;
  limits.requests_per_minute = 1;
  limits.tokens_per_day = 10;
  UpstreamBudget budget = Budget(limits);
  EXPECT_EQ(budget.TryBegin({10, 0}), Verdict::kGranted);
  budget.Cancel({10, 0});
  EXPECT_EQ(budget.TryBegin({10, 0}), Verdict::kGranted);
}

TEST_F(UpstreamBudgetTest, TokensAreThoseOfADay) {
  BudgetLimits limits;
  limits.tokens_per_day = 100;
  UpstreamBudget budget = Budget(limits);
  EXPECT_EQ(budget.TryBegin({60, 0}), Verdict::kGranted);
  budget.End({60, 0}, {60, 30});
  EXPECT_EQ(budget.TryBegin({11, 0}), Verdict::kTokens);
  EXPECT_EQ(budget.TryBegin({10, 0}), Verdict::kGranted);
  budget.End({10, 0}, {10, 0});
  EXPECT_EQ(budget.totals().tokens_today, 100);
  now_ += absl::Hours(24) - absl::Seconds(1);
  EXPECT_EQ(budget.TryBegin({1, 0}), Verdict::kTokens);
  now_ += absl::Seconds(1);
  EXPECT_EQ(budget.TryBegin({100, 0}), Verdict::kGranted);
  EXPECT_EQ(budget.totals().tokens_today, 0);
  EXPECT_EQ(budget.totals().tokens.prompt, 70);
}

TEST_F(UpstreamBudgetTest, WhatRunsIsSetAside) {
  BudgetLimits limits;
  limits.tokens_per_day = 100;
  UpstreamBudget budget = Budget(limits);
  EXPECT_EQ(budget.TryBegin({10, 50}), Verdict::kGranted);
  EXPECT_EQ(budget.TryBegin({10, 50}), Verdict::kTokens);
  budget.End({10, 50}, {10, 5});
  EXPECT_EQ(budget.TryBegin({10, 50}), Verdict::kGranted);
}

TEST_F(UpstreamBudgetTest, CostsHaveTheirPrices) {
  BudgetLimits limits;
  limits.cost_per_day = 1;
  limits.prompt_cost_per_million = 2;
  limits.completion_cost_per_million = 10;
  UpstreamBudget budget = Budget(limits);
  EXPECT_EQ(budget.TryBegin({100'000, 80'000}), Verdict::kGranted);
  budget.End({100'000, 80'000}, {100'000, 70'000});
  EXPECT_DOUBLE_EQ(budget.totals().cost_today, 0.9);
  EXPECT_EQ(budget.TryBegin({0, 10'001}), Verdict::kCost);
  EXPECT_EQ(budget.TryBegin({0, 10'000}), Verdict::kGranted);
}

}  // namespace
}  // namespace onegrid::gateway
