#include "services/inference/fair_queue.h"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/inference/task.h"

namespace onegrid::inference {
namespace {

using ::testing::ElementsAre;

class NamedTask : public Task {
 public:
  NamedTask(std::string name, TaskPlace place)
      : name_(std::move(name)), place_(std::move(place)) {}
  const std::string& name() const { return name_; }

  absl::Span<const int32_t> tokens() const override { return {}; }
  int most_tokens() const override { return 0; }
  const TaskPlace& place() const override { return place_; }
  int first_output() const override { return 0; }
  absl::Status Interrupted() const override { return absl::OkStatus(); }
  void OnStart(int) override {}
  void OnLogits(int, absl::Span<float>) override {}
  bool OnStepDone() override { return true; }
  void OnEnd(const absl::Status&) override {}

 private:
  const std::string name_;
  const TaskPlace place_;
};

std::string NamesOf(const std::vector<std::shared_ptr<Task>>& tasks) {
  std::string names;
  for (const auto& task : tasks) {
    names += static_cast<const NamedTask&>(*task).name();
  }
  return names;
}

TEST(FairQueueLateTest, GivesUpThoseThatCameBeforeAndAreTooMany) {
  FairQueue queue(8);
  std::optional<std::shared_ptr<Task>> displaced;
  const absl::Time start = absl::UnixEpoch();
  // Of priorities 0, 1, 0, 1.
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(queue.Push(
        std::make_shared<NamedTask>(absl::StrCat(i), TaskPlace{i % 2, "", ""}),
        &displaced, start + absl::Seconds(i)));
  }
  const auto late = [&](int seconds, int keep) {
    return NamesOf(queue.Late(start + absl::Seconds(seconds), keep));
  };
  EXPECT_EQ(late(9, 4), "");
  EXPECT_EQ(late(9, 3), "0");
  EXPECT_EQ(late(9, 1), "021");
  EXPECT_EQ(late(9, 0), "0213");
  EXPECT_EQ(late(0, 0), "");
  EXPECT_EQ(late(2, 0), "01");
  // Those that came later count among those that wait.
  EXPECT_EQ(late(1, 3), "0");
  Waiting first = *queue.Next();
  ASSERT_TRUE(queue.Take(first));
  first.started = 0;
  queue.PutBack(first);
  EXPECT_EQ(late(9, 0), "023");
  EXPECT_EQ(late(9, 3), "");
}

// The one who has a single task keeps it, though it waits for longest, until
// the others have as few.
TEST(FairQueueLateTest, TakesFromTheCallerWhoHasMost) {
  FairQueue queue(16);
  std::optional<std::shared_ptr<Task>> displaced;
  const absl::Time start = absl::UnixEpoch();
  const auto push = [&](const std::string& name, const std::string& caller,
                        int seconds) {
    ASSERT_TRUE(
        queue.Push(std::make_shared<NamedTask>(name, TaskPlace{0, caller, ""}),
                   &displaced, start + absl::Seconds(seconds)));
  };
  push("b", "small", 0);
  for (const char* name : {"1", "2", "3", "4"}) push(name, "flood", 2);
  push("x", "middle", 3);
  push("y", "middle", 3);
  const auto late = [&](int seconds, int keep) {
    return NamesOf(queue.Late(start + absl::Seconds(seconds), keep));
  };
  // Nobody else's are late.
  EXPECT_EQ(late(1, 2), "");
  EXPECT_EQ(late(3, 5), "12");
  EXPECT_EQ(late(9, 4), "123");
  EXPECT_EQ(late(9, 3), "123x");
  EXPECT_EQ(late(9, 0), "123xb4y");
}

class FairQueueTest : public testing::Test {
 protected:
  // The name of the task that lost its place, "refused", or nothing.
  std::string Push(const std::string& name, const std::string& caller,
                   int priority = 0) {
    std::optional<std::shared_ptr<Task>> displaced;
    auto task =
        std::make_shared<NamedTask>(name, TaskPlace{priority, caller, ""});
    if (!queue_.Push(task, &displaced)) return "refused";
    return displaced.has_value() ? NameOf(**displaced) : "";
  }
  static std::string NameOf(const Task& task) {
    return static_cast<const NamedTask&>(task).name();
  }
  Waiting TakeNext() {
    Waiting next = *queue_.Next();
    EXPECT_TRUE(queue_.Take(next));
    return next;
  }
  // Takes all, each of which costs its caller `tokens`.
  std::vector<std::string> Drain(double tokens = 100) {
    std::vector<std::string> names;
    while (queue_.size() > 0) {
      const Waiting next = TakeNext();
      queue_.Charge(next.task->place().caller, tokens);
      names.push_back(NameOf(*next.task));
    }
    return names;
  }

  FairQueue queue_{6};
};

TEST_F(FairQueueTest, TasksOfOneCallerLeaveInOrder) {
  for (const char* name : {"1", "2", "3"}) Push(name, "a");
  EXPECT_THAT(Drain(), ElementsAre("1", "2", "3"));
  EXPECT_FALSE(queue_.Next().has_value());
}

TEST_F(FairQueueTest, HigherPriorityLeavesFirst) {
  Push("low", "a", -5);
  Push("middle", "a");
  Push("high", "b", 7);
  EXPECT_THAT(Drain(), ElementsAre("high", "middle", "low"));
}

TEST_F(FairQueueTest, CallersTakeTurnsHoweverManyTasksTheyHave) {
  for (const char* name : {"a1", "a2", "a3", "a4"}) Push(name, "a");
  Push("b1", "b");
  Push("b2", "b");
  EXPECT_THAT(Drain(), ElementsAre("a1", "b1", "a2", "b2", "a3", "a4"));
}

TEST_F(FairQueueTest, TurnsAreWeightedByTokens) {
  FairQueue queue(100);
  for (int i = 0; i < 20; ++i) {
    for (const char* caller : {"long", "short"}) {
      std::optional<std::shared_ptr<Task>> displaced;
      ASSERT_TRUE(queue.Push(
          std::make_shared<NamedTask>(caller, TaskPlace{0, caller, ""}),
          &displaced));
    }
  }
  // A long task is as much as three short ones.
  std::map<std::string, int> started;
  for (int i = 0; i < 20; ++i) {
    const Waiting next = *queue.Next();
    ASSERT_TRUE(queue.Take(next));
    const std::string& caller = next.task->place().caller;
    queue.Charge(caller, caller == "long" ? 300 : 100);
    ++started[caller];
  }
  EXPECT_EQ(started["long"], 5);
  EXPECT_EQ(started["short"], 15);
}

TEST_F(FairQueueTest, NobodySavesUpTurnsWhileIdle) {
  for (const char* name : {"a1", "a2", "a3"}) Push(name, "a");
  for (int i = 0; i < 2; ++i) {
    queue_.Charge(TakeNext().task->place().caller, 1000);
  }
  // "b" has been given nothing, but is behind by one turn only.
  for (const char* name : {"b1", "b2"}) Push(name, "b");
  Push("a4", "a");
  EXPECT_THAT(Drain(), ElementsAre("a3", "b1", "b2", "a4"));
}

TEST_F(FairQueueTest, OneStartInEightIsTheLongestWaitingOne) {
  Push("low", "a", -3);
  Push("lower", "a", -9);
  std::vector<std::string> names;
  for (int i = 0; i < 16; ++i) {
    Push(absl::StrCat(i), "b", 2);
    const Waiting next = TakeNext();
    names.push_back(NameOf(*next.task));
    if (names.back() == "low") {
      // It counts as one of those that it was preferred to.
      EXPECT_EQ(next.rank, 2);
      EXPECT_EQ(i, FairQueue::kTurn - 1);
    }
  }
  EXPECT_EQ(names[2 * FairQueue::kTurn - 1], "lower");
}

TEST_F(FairQueueTest, WhatIsPutBackComesFirstWhateverTheLimit) {
  for (const char* name : {"1", "2", "3", "4", "5", "6"}) Push(name, "a");
  Waiting one = TakeNext(), two = TakeNext();
  one.started = 0;
  two.started = 1;
  EXPECT_EQ(Push("7", "a"), "");
  EXPECT_EQ(Push("8", "a"), "");
  queue_.PutBack(two);
  queue_.PutBack(one);
  EXPECT_EQ(queue_.size(), 8);
  EXPECT_EQ(Push("9", "a"), "refused");
  EXPECT_THAT(Drain(), ElementsAre("1", "2", "3", "4", "5", "6", "7", "8"));
}

TEST_F(FairQueueTest, FullQueueRefusesWhoeverHasMost) {
  for (const char* name : {"a1", "a2", "a3", "a4", "a5"}) Push(name, "a");
  Push("b1", "b");
  EXPECT_EQ(Push("a6", "a"), "refused");
  EXPECT_EQ(Push("b2", "b"), "a5");
  EXPECT_EQ(Push("c1", "c"), "a4");
  // Three, two and one: two more than one of the others' would be needed.
  EXPECT_EQ(Push("b3", "b"), "refused");
  EXPECT_EQ(Push("c2", "c"), "a3");
  EXPECT_EQ(Push("c3", "c"), "refused");
  EXPECT_EQ(queue_.size(), 6);
}

TEST_F(FairQueueTest, FullQueueRefusesTheLowestRankFirst) {
  for (const char* name : {"a1", "a2", "a3", "a4"}) Push(name, "a");
  Push("low", "b", -1);
  Push("b", "b");
  EXPECT_EQ(Push("lower", "c", -2), "refused");
  EXPECT_EQ(Push("c1", "c"), "low");
  EXPECT_EQ(Push("high", "a", 1), "a4");
}

TEST_F(FairQueueTest, StartedTasksKeepTheirPlaceInAFullQueue) {
  Push("started", "a", -1);
  Waiting started = TakeNext();
  started.started = 0;
  for (const char* name : {"1", "2", "3", "4", "5", "6"}) Push(name, "a");
  queue_.PutBack(started);
  EXPECT_EQ(Push("b1", "b"), "6");
}

// It may be put back for the sake of the very one whose turn it is.
TEST_F(FairQueueTest, WhoseTurnItWasKeepsItWhoeverIsPutBack) {
  Push("preempted", "a");
  Waiting preempted = TakeNext();
  preempted.started = 0;
  Push("next", "b");
  for (int i = 1; i < FairQueue::kTurn; ++i) {
    Push("high", "c", 1);
    EXPECT_EQ(NameOf(*TakeNext().task), "high");
  }
  // The turn of the longest waiting one, which came after the other.
  Push("high", "c", 1);
  const Waiting next = *queue_.Next();
  ASSERT_EQ(NameOf(*next.task), "next");
  queue_.PutBack(preempted);
  EXPECT_TRUE(queue_.Take(next));
  EXPECT_THAT(Drain(), ElementsAre("high", "preempted"));
}

TEST_F(FairQueueTest, RemovedTasksAreGone) {
  for (const char* name : {"1", "2", "3"}) Push(name, "a");
  const std::shared_ptr<Task> second = queue_.tasks()[1];
  EXPECT_TRUE(queue_.Remove(second.get()));
  EXPECT_FALSE(queue_.Remove(second.get()));
  EXPECT_FALSE(queue_.Take(Waiting{second}));
  EXPECT_THAT(Drain(), ElementsAre("1", "3"));
}

TEST_F(FairQueueTest, AccountsOfManyCallersAreForgotten) {
  // Each is charged while it runs, after its turn.
  for (int i = 0; i < 20'000; ++i) {
    Push("task", absl::StrCat("caller", i));
    queue_.Charge(TakeNext().task->place().caller, 1 + i % 7);
    EXPECT_LE(queue_.accounts(), FairQueue::kMostAccounts + 1);
  }
}

}  // namespace
}  // namespace onegrid::inference
