#include "services/gateway/circuit_breaker.h"

#include <gtest/gtest.h>

namespace onegrid::gateway {
namespace {

using State = CircuitBreaker::State;
using Outcome = CircuitBreaker::Outcome;

class CircuitBreakerTest : public testing::Test {
 protected:
  // Begins a request and ends it at once; false if it was not let through.
  bool Try(Outcome outcome) {
    const auto ticket = breaker_.TryBegin();
    if (ticket.has_value()) breaker_.End(*ticket, outcome);
    return ticket.has_value();
  }
  void Open() {
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(Try(Outcome::kFailed));
    EXPECT_EQ(breaker_.state(), State::kOpen);
  }

  absl::Time now_ = absl::FromUnixSeconds(1000);
  CircuitBreaker breaker_{{3, absl::Seconds(10)}, [this] { return now_; }};
};

TEST_F(CircuitBreakerTest, OpensAfterFailuresInARow) {
  EXPECT_TRUE(Try(Outcome::kFailed));
  EXPECT_TRUE(Try(Outcome::kFailed));
  EXPECT_TRUE(Try(Outcome::kSucceeded));
  EXPECT_TRUE(Try(Outcome::kFailed));
  EXPECT_TRUE(Try(Outcome::kFailed));
  EXPECT_EQ(breaker_.state(), State::kClosed);
  EXPECT_TRUE(Try(Outcome::kFailed));
  EXPECT_EQ(breaker_.state(), State::kOpen);
  EXPECT_FALSE(Try(Outcome::kSucceeded));
}

TEST_F(CircuitBreakerTest, OneProbeClosesIt) {
  Open();
  now_ += absl::Seconds(10) - absl::Nanoseconds(1);
  EXPECT_FALSE(breaker_.TryBegin().has_value());
  now_ += absl::Nanoseconds(1);
  EXPECT_EQ(breaker_.state(), State::kHalfOpen);
  const auto probe = breaker_.TryBegin();
  ASSERT_TRUE(probe.has_value());
  EXPECT_FALSE(breaker_.TryBegin().has_value());
  breaker_.End(*probe, Outcome::kSucceeded);
  EXPECT_EQ(breaker_.state(), State::kClosed);
  // The failures from before are forgotten.
  EXPECT_TRUE(Try(Outcome::kFailed));
  EXPECT_EQ(breaker_.state(), State::kClosed);
}

TEST_F(CircuitBreakerTest, AProbeThatFailsOpensItAgain) {
  Open();
  now_ += absl::Seconds(10);
  EXPECT_TRUE(Try(Outcome::kFailed));
  EXPECT_EQ(breaker_.state(), State::kOpen);
  now_ += absl::Seconds(9);
  EXPECT_FALSE(Try(Outcome::kSucceeded));
}

TEST_F(CircuitBreakerTest, AnAbandonedProbeMakesRoomForAnother) {
  Open();
  now_ += absl::Seconds(10);
  EXPECT_TRUE(Try(Outcome::kAbandoned));
  EXPECT_EQ(breaker_.state(), State::kHalfOpen);
  EXPECT_TRUE(Try(Outcome::kSucceeded));
  EXPECT_EQ(breaker_.state(), State::kClosed);
}

TEST_F(CircuitBreakerTest, WhatBeganBeforeAChangeDoesNotCount) {
  const auto early = breaker_.TryBegin();
  ASSERT_TRUE(early.has_value());
  Open();
  breaker_.End(*early, Outcome::kSucceeded);
  EXPECT_EQ(breaker_.state(), State::kOpen);
}

}  // namespace
}  // namespace onegrid::gateway
