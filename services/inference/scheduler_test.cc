// Goal: whose turn it is, on a tiny engine with tasks that say what is done
// with them.
#include "services/inference/scheduler.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/inference/scheduler_testing.h"

namespace onegrid::inference {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(SchedulerTest, HigherPriorityTakesTheSlotOfALowerOne) {
  Start(/*slots=*/1);
  auto low = std::make_shared<SayingTask>(Prompt(10), 40);
  std::shared_ptr<SayingTask> high;
  int said_before = -1;
  low->on_token = [&](int said) {
    if (said == 5) {
      high = std::make_shared<SayingTask>(Prompt(10), 5, TaskPlace{1, "", ""});
      high->on_end = [&] { said_before = low->said(); };
      EXPECT_TRUE(scheduler_->Submit(high).ok());
    }
  };
  Submit(low);
  EXPECT_TRUE(low->Wait().ok());
  EXPECT_TRUE(high->ended());
  EXPECT_EQ(said_before, 5);
  EXPECT_EQ(low->preemptions(), 1);
  EXPECT_EQ(low->said(), 40);
  EXPECT_EQ(scheduler_->load().preemptions, 1);
  ExpectBooksBalance();
}

// Of 12 tasks that say 8 letters each: the steps of all of them are enough rows
// for it. Once one of them needs all logits, all get all.
TEST_F(SchedulerTest, TheLargestLogitsComeAloneIfAllTasksNeedNoMore) {
  for (const bool one_needs_all : {false, true}) {
    Start(/*slots=*/12);
    absl::Notification go;
    const auto gate = Hold(go);
    std::vector<std::shared_ptr<SayingTask>> tasks;
    for (int i = 0; i < 12; ++i) {
      auto task = std::make_shared<SayingTask>(Prompt(2), 8);
      task->top_logits_wanted = one_needs_all && i == 7 ? 0 : 1 + i;
      tasks.push_back(Submit(task));
    }
    go.Notify();
    int given = 0;
    for (const auto& task : tasks) {
      EXPECT_TRUE(task->Wait().ok());
      given += task->top_logits_given;
    }
    if (one_needs_all) {
      EXPECT_EQ(given, 0);
    } else {
      EXPECT_GE(given, 12 * 7);
    }
  }
}

// A prompt of 40 takes 2 steps of 32 alone; beside a task that generates, which
// has one of 8 tokens of each step, 6.
TEST_F(SchedulerTest, PromptsTakeSmallStepsWhileATaskGenerates) {
  step_.max_shared_tokens = 8;
  for (const bool alone : {true, false}) {
    Start(/*slots=*/2);
    auto late = std::make_shared<SayingTask>(Prompt(40, 1), 1);
    int asked = 0;
    late->on_asked = [&] { ++asked; };
    if (alone) {
      Submit(late);
      EXPECT_TRUE(late->Wait().ok());
      EXPECT_LE(asked, 4);
    } else {
      const int said = SaidBeside(late);
      EXPECT_GE(said, 6);
      EXPECT_LE(said, 8);
    }
    ExpectBooksBalance();
  }
}

// However few tokens a step may have, one is a prompt's.
TEST_F(SchedulerTest, PromptsAdvanceBesideATaskThatGenerates) {
  step_.max_shared_tokens = 1;
  Start(/*slots=*/2);
  auto late = std::make_shared<SayingTask>(Prompt(4, 1), 1);
  EXPECT_LE(SaidBeside(late), 6);
}

TEST_F(SchedulerTest, EqualPriorityWaits) {
  Start(/*slots=*/1);
  auto first = std::make_shared<SayingTask>(Prompt(10), 20);
  std::shared_ptr<SayingTask> second;
  first->on_token = [&](int said) {
    if (said == 5) second = Submit(10, 5, 0, "other");
  };
  Submit(first);
  EXPECT_TRUE(first->Wait().ok());
  EXPECT_TRUE(second->Wait().ok());
  EXPECT_EQ(first->preemptions(), 0);
}

TEST_F(SchedulerTest, LowPriorityDoesNotStarve) {
  Start(/*slots=*/1);
  // As each one of high priority ends, two more wait.
  std::vector<std::shared_ptr<SayingTask>> all;
  int starts_before_low = -1;
  std::function<void(int)> add = [&](int left) {
    auto task =
        std::make_shared<SayingTask>(Prompt(4), 3, TaskPlace{50, "busy", ""});
    task->on_end = [&, left] {
      if (left > 0) add(left - 1);
    };
    all.push_back(task);
    EXPECT_TRUE(scheduler_->Submit(task).ok());
  };
  absl::Notification go;
  const auto gate = Hold(go);
  add(40);
  add(40);
  auto low =
      std::make_shared<SayingTask>(Prompt(4), 30, TaskPlace{-100, "", ""});
  low->on_end = [&] { starts_before_low = static_cast<int>(all.size()); };
  Submit(low);
  go.Notify();
  EXPECT_TRUE(low->Wait().ok());
  EXPECT_LE(starts_before_low, FairQueue::kTurn + 3);
  // It was started as one of the high ones, so none took its slot.
  EXPECT_EQ(low->preemptions(), 0);
  // `all` grows until the last one has ended.
  while (scheduler_->load().queued + scheduler_->load().running > 0) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  scheduler_.reset();
}

TEST_F(SchedulerTest, CallersTakeTurns) {
  Start(/*slots=*/1);
  absl::Notification go;
  const auto gate = Hold(go);
  std::vector<std::string> order;
  std::vector<std::shared_ptr<SayingTask>> tasks;
  for (const char* caller : {"a", "a", "a", "a", "b", "b"}) {
    tasks.push_back(
        std::make_shared<SayingTask>(Prompt(6), 4, TaskPlace{0, caller, ""}));
    tasks.back()->on_end = [&order, caller] { order.push_back(caller); };
    Submit(tasks.back());
  }
  go.Notify();
  for (const auto& task : tasks) EXPECT_TRUE(task->Wait().ok());
  EXPECT_THAT(order, ElementsAre("a", "b", "a", "b", "a", "a"));
}

TEST_F(SchedulerTest, DisplacedTaskEndsWithQueueFull) {
  Start(/*slots=*/1, 0, 0, /*max_queue=*/3);
  absl::Notification go;
  const auto gate = Hold(go);
  const auto one = Submit(4, 2, 0, "a"), two = Submit(4, 2, 0, "a");
  const auto other = Submit(4, 2, 0, "b");
  go.Notify();
  const absl::Status status = two->Wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(common::ErrorReason(status), "QUEUE_FULL");
  EXPECT_TRUE(one->Wait().ok());
  EXPECT_TRUE(other->Wait().ok());
}

// The first one has the only slot until the second one was refused, which came
// first of those that wait, in a queue too long by one.
TEST_F(SchedulerTest, WhoeverWaitsTooLongAmongTooManyIsRefused) {
  for (const int calm : {0, 1, 2}) {
    Start(1, 0, 0, 64, absl::Milliseconds(20), calm);
    auto first = std::make_shared<SayingTask>(Prompt(4), 200);
    auto second = std::make_shared<SayingTask>(Prompt(4), 1);
    std::vector<std::shared_ptr<SayingTask>> calm_ones;
    for (int i = 0; i < calm; ++i) {
      calm_ones.push_back(std::make_shared<SayingTask>(Prompt(4), 1));
    }
    absl::Notification begun;
    first->on_token = [&](int said) {
      if (said == 1) begun.Notify();
      if (said > 1 && !second->ended()) absl::SleepFor(absl::Milliseconds(1));
    };
    Submit(first);
    begun.WaitForNotification();
    Submit(second);
    for (const auto& task : calm_ones) Submit(task);
    const absl::Status late = second->Wait();
    EXPECT_EQ(common::ErrorReason(late), "QUEUE_FULL");
    EXPECT_THAT(late.message(), HasSubstr("20ms"));
    EXPECT_EQ(second->said(), 0);
    EXPECT_TRUE(first->Wait().ok());
    for (const auto& task : calm_ones) EXPECT_TRUE(task->Wait().ok());
    scheduler_.reset();
  }
}

TEST_F(SchedulerTest, WhoeverWaitsInACalmQueueIsNotRefused) {
  Start(1, 0, 0, 64, absl::Milliseconds(1), 1);
  auto first = std::make_shared<SayingTask>(Prompt(4), 40);
  absl::Notification begun;
  first->on_token = [&](int said) {
    if (said == 1) begun.Notify();
    absl::SleepFor(absl::Milliseconds(1));
  };
  Submit(first);
  begun.WaitForNotification();
  EXPECT_TRUE(Submit(std::make_shared<SayingTask>(Prompt(4), 1))->Wait().ok());
  EXPECT_TRUE(first->Wait().ok());
}

// What a task of low rank holds would not be enough for the one that waits.
TEST_F(SchedulerTest, NothingIsPreemptedForATaskThatStillWouldNotFit) {
  Start(3);
  const int64_t limit =
      engine_->sequence_bytes_max(180) + engine_->sequence_bytes_max(44);
  Start(3, limit);
  auto high =
      std::make_shared<SayingTask>(Prompt(120), 60, TaskPlace{2, "", ""});
  auto low = std::make_shared<SayingTask>(Prompt(4), 40);
  auto wide =
      std::make_shared<SayingTask>(Prompt(120, 5), 60, TaskPlace{1, "", ""});
  absl::Notification begun, waits;
  low->on_token = [&](int said) {
    if (said > 1) return;
    begun.Notify();
    waits.WaitForNotification();
  };
  Submit(high);
  Submit(low);
  begun.WaitForNotification();
  Submit(wide);
  waits.Notify();
  EXPECT_TRUE(low->Wait().ok());
  EXPECT_TRUE(high->Wait().ok());
  EXPECT_TRUE(wide->Wait().ok());
  EXPECT_EQ(low->preemptions(), 0);
}

// A step computes a bounded number of rows of a scoring task; the rest of the
// step is left to prompts.
TEST(PromptShareTest, RowsWithOutputAreBoundedApartFromTokens) {
  class Scoring : public SayingTask {
   public:
    explicit Scoring(int first) : SayingTask(Prompt(200), 1), first_(first) {}
    int first_output() const override { return first_; }

   private:
    const int first_;
  };
  const auto share = [](int first, int fed, int tokens, int outputs) {
    Running running;
    running.entry.task = std::make_shared<Scoring>(first);
    running.fed = fed;
    const PromptShare found = ShareOf(running, tokens, outputs);
    return std::make_pair(found.tokens, found.outputs);
  };
  EXPECT_EQ(share(0, 0, 256, 64), std::make_pair(64, 64));
  EXPECT_EQ(share(50, 0, 256, 64), std::make_pair(114, 64));
  EXPECT_EQ(share(50, 0, 40, 64), std::make_pair(40, 0));
  EXPECT_EQ(share(199, 0, 256, 64), std::make_pair(200, 1));
  EXPECT_EQ(share(50, 60, 256, 0), std::make_pair(0, 0));
}

TEST_F(SchedulerTest, CancelledTaskFreesItsSlotWithinAStep) {
  Start(/*slots=*/1);
  auto running = std::make_shared<SayingTask>(Prompt(10), 100);
  running->on_token = [&](int said) { running->cancelled = said == 7; };
  Submit(running);
  const auto next = Submit(10, 3, 0);
  EXPECT_EQ(running->Wait().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(running->said(), 7);
  EXPECT_TRUE(next->Wait().ok());
  ExpectBooksBalance();
}

}  // namespace
}  // namespace onegrid::inference
