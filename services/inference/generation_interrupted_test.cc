// Goal: calls that are refused, cancelled, late or unread end at once and leave
// nothing behind.
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/inference/generation_testing.h"

namespace onegrid::inference {
namespace {

TEST_F(GenerationServiceTest, FullQueueIsRefusedWithItsReason) {
  Start(/*max_sequences=*/1, /*max_queue=*/1);
  // The scheduler asks each waiting request whether it is still wanted; a
  // request that does not answer stays in the queue and fills it.
  absl::Notification asked, answer;
  CallContext context;
  context.cancelled = [&] {
    if (!asked.HasBeenNotified()) asked.Notify();
    answer.WaitForNotification();
    return false;
  };
  Generated waiting;
  std::thread thread(
      [&] { waiting = Generate(service(), TextRequest("waits", 5), context); });
  asked.WaitForNotification();
  const absl::Status refused =
      Generate(service(), TextRequest("one too many", 5)).status;
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(common::ErrorReason(refused), "QUEUE_FULL");
  answer.Notify();
  thread.join();
  EXPECT_TRUE(waiting.status.ok()) << waiting.status;
}

TEST_F(GenerationServiceTest, CancelledCallEndsWithinOneStepAndFreesTheSlot) {
  // Without guesses, so that a step is a token.
  Start(/*max_sequences=*/1, /*max_queue=*/4, "off");
  std::atomic<int> questions{0};
  CallContext context;
  context.cancelled = [&] { return ++questions > 5; };
  const Generated result = Generate(service(), TextRequest("go", 200), context);
  EXPECT_EQ(result.status.code(), absl::StatusCode::kCancelled);
  // Asked once before each step.
  EXPECT_LE(result.tokens.size(), 5u);
  EXPECT_TRUE(Generate(service(), TextRequest("free", 5)).status.ok());
}

TEST_F(GenerationServiceTest, PassedDeadlineEndsTheCall) {
  Start(/*max_sequences=*/1);
  CallContext context;
  context.deadline = absl::Now() - absl::Seconds(1);
  EXPECT_EQ(Generate(service(), TextRequest("late", 5), context).status.code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(Generate(service(), TextRequest("free", 5)).status.ok());
}

TEST_F(GenerationServiceTest, DeadlinesPassInASlotAndInTheQueue) {
  Start(/*max_sequences=*/1, /*max_queue=*/4, "off");
  const auto slow = [] {
    absl::SleepFor(absl::Milliseconds(2));
    return false;
  };
  Generated queued;
  std::thread thread;
  CallContext context;
  context.cancelled = slow;
  context.deadline = absl::Now() + absl::Milliseconds(100);
  Generated result;
  result.status = service().Generate(
      TextRequest("slow", 250), context,
      [&](const v1::GenerateResponse& response) {
        result.tokens.push_back(0);
        if (!response.has_started()) return true;
        thread = std::thread([&] {
          CallContext soon;
          soon.deadline = absl::Now() + absl::Milliseconds(20);
          queued = Generate(service(), TextRequest("queued", 5), soon);
        });
        return true;
      });
  thread.join();
  EXPECT_EQ(result.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_GT(result.tokens.size(), 1u);
  EXPECT_LT(result.tokens.size(), 60u);
  EXPECT_EQ(queued.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(queued.started.prompt_tokens(), 0);
  const v1::Load load = service().GetLoad();
  EXPECT_EQ(load.running() + load.queued(), 0);
  EXPECT_EQ(load.kv_bytes(), load.prefix_cache_bytes());
}

TEST_F(GenerationServiceTest, ReaderThatGoesAwayEndsTheGeneration) {
  Start(/*max_sequences=*/1);
  int writes = 0;
  const absl::Status status = service().Generate(
      TextRequest("gone", 200), {}, [&](const v1::GenerateResponse&) {
        ++writes;
        return writes < 3;
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(writes, 3);
  EXPECT_TRUE(Generate(service(), TextRequest("next", 5)).status.ok());
}

}  // namespace
}  // namespace onegrid::inference
