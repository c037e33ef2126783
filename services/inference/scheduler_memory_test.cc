// Goal: whose memory it is, and what sequences share, on a tiny engine with
// tasks that say what is done with them.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/inference/scheduler.h"
#include "services/inference/scheduler_testing.h"

namespace onegrid::inference {
namespace {

using ::testing::HasSubstr;

TEST_F(SchedulerTest, TaskThatCanNeverFitIsRefusedWithTheSizes) {
  Start(/*slots=*/2);
  const int64_t limit = Block() + Block() / 2;
  Start(/*slots=*/2, limit);
  const absl::Status status = scheduler_->Submit(
      std::make_shared<SayingTask>(Prompt(10), kTinyContext - 10));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(common::ErrorReason(status), "KV_BUDGET_EXCEEDED");
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(absl::StrCat(limit, " bytes, which is 64 tokens")));
  EXPECT_TRUE(Submit(10, 54, 0)->Wait().ok());
}

// The second task starts while a page more of both fits, and is about to give
// its window's last page back when the first one needs another.
TEST_F(SchedulerTest, ShortMemoryIsGivenToTheFirstTask) {
  Start(/*slots=*/2);
  const int64_t limit = 4 * Block();
  Start(/*slots=*/2, limit);
  absl::Notification go;
  const auto gate = Hold(go);
  const auto first = Submit(60, 100, 0), second = Submit(2, 120, 0);
  int said_before = -1;
  first->on_end = [&] { said_before = second->said(); };
  go.Notify();
  EXPECT_TRUE(first->Wait().ok());
  EXPECT_TRUE(second->Wait().ok());
  EXPECT_EQ(first->preemptions(), 0);
  EXPECT_EQ(second->preemptions(), 1);
  EXPECT_GT(said_before, 60);
  EXPECT_EQ(second->said(), 120);
  ExpectBooksBalance();
}

// Goal: whatever comes, in little memory, each task ends with all it had to
// say, and no step holds more than the limit.
TEST_F(SchedulerTest, ManyTasksInLittleMemoryAllEnd) {
  Start(/*slots=*/4);
  const int64_t limit = 4 * Block();
  constexpr int kTasks = 18;
  for (const int64_t prefix_bytes : {int64_t{0}, limit}) {
    Start(/*slots=*/4, limit, prefix_bytes);
    std::vector<std::shared_ptr<SayingTask>> tasks;
    for (int i = 0; i < kTasks; ++i) {
      const int outputs = 1 + i * 37 % 60;
      tasks.push_back(std::make_shared<SayingTask>(
          Prompt(1 + i * 61 % 140, i % 4), outputs,
          TaskPlace{i / 6 + i % 2, absl::StrCat(i % 3), ""}));
      tasks.back()->on_token = [&](int) {
        EXPECT_LE(engine_->kv_cache().bytes(), limit);
      };
      Submit(tasks.back());
    }
    for (int i = 0; i < kTasks; ++i) {
      EXPECT_TRUE(tasks[i]->Wait().ok());
      EXPECT_EQ(tasks[i]->said(), 1 + i * 37 % 60);
    }
    ExpectBooksBalance();
    scheduler_.reset();
  }
}

TEST_F(SchedulerTest, KeptPrefixesAreGivenUpBeforeTasks) {
  Start(/*slots=*/2);
  const int64_t limit = 6 * Block();
  Start(/*slots=*/2, limit, /*prefix_bytes=*/limit);
  for (int i = 0; i < 6; ++i) {
    EXPECT_TRUE(
        Submit(std::make_shared<SayingTask>(Prompt(130, i), 20))->Wait().ok());
    EXPECT_LE(scheduler_->load().kv_bytes, limit);
  }
  EXPECT_EQ(scheduler_->load().preemptions, 0);
  EXPECT_GT(scheduler_->load().prefix_bytes, 2 * Block());
  ExpectBooksBalance();
}

TEST_F(SchedulerTest, PromptsThatComeTogetherRunOnce) {
  Start(/*slots=*/4, 0, /*prefix_bytes=*/1 << 20);
  absl::Notification go;
  const auto gate = Hold(go);
  std::vector<std::shared_ptr<SayingTask>> tasks;
  for (int i = 0; i < 4; ++i) {
    tasks.push_back(Submit(std::make_shared<SayingTask>(Prompt(200), 5)));
  }
  go.Notify();
  for (const auto& task : tasks) EXPECT_TRUE(task->Wait().ok());
  EXPECT_EQ(tasks[0]->restored(), 0);
  for (int i = 1; i < 4; ++i) EXPECT_EQ(tasks[i]->restored(), 192) << i;
  ExpectBooksBalance();
}

TEST_F(SchedulerTest, APageThatIsTheSameInPartIsWaitedForIfItWillBeFull) {
  // 100 tokens the same, in prompts that fill the second page and that do not.
  for (const int length : {130, 120}) {
    Start(/*slots=*/4, 0, /*prefix_bytes=*/1 << 20);
    absl::Notification go;
    // Of a whole step, so that the others' pages end where their steps do.
    const auto gate = Hold(go, 32);
    std::vector<std::shared_ptr<SayingTask>> tasks;
    for (int i = 0; i < 3; ++i) {
      std::vector<int32_t> prompt = Prompt(100, 9);
      prompt.resize(static_cast<size_t>(length), kTinyLetterA + i);
      tasks.push_back(Submit(std::make_shared<SayingTask>(prompt, 5)));
    }
    int running = 0;
    tasks[0]->on_token = [&](int said) {
      if (said == 1) running = scheduler_->load().running;
    };
    go.Notify();
    for (const auto& task : tasks) EXPECT_TRUE(task->Wait().ok());
    EXPECT_EQ(tasks[0]->restored(), 0);
    // As soon as the page is there, or none to come.
    EXPECT_GE(running, 2);
    for (int i = 1; i < 3; ++i) {
      EXPECT_EQ(tasks[i]->restored(), length == 130 ? 100 : 64) << i;
    }
    ExpectBooksBalance();
  }
}

TEST_F(SchedulerTest, NobodyWaitsForWhatIsKeptAlready) {
  Start(/*slots=*/4, 0, /*prefix_bytes=*/1 << 20);
  const auto prompt = [](int last) {
    std::vector<int32_t> tokens = Prompt(100, 9);
    tokens.resize(130, kTinyLetterA + last);
    return tokens;
  };
  // Steps that end where pages do.
  EXPECT_TRUE(Submit(std::make_shared<SayingTask>(prompt(0), 5))->Wait().ok());
  absl::Notification go;
  const auto gate = Hold(go);
  std::vector<std::shared_ptr<SayingTask>> tasks;
  int running = 0;
  for (int i = 1; i <= 3; ++i) {
    auto task = std::make_shared<SayingTask>(prompt(i), 1);
    task->on_token = [&](int) {
      running = std::max(running, scheduler_->load().running);
    };
    tasks.push_back(Submit(std::move(task)));
  }
  go.Notify();
  for (const auto& task : tasks) {
    EXPECT_TRUE(task->Wait().ok());
    EXPECT_EQ(task->restored(), 100);
  }
  EXPECT_GE(running, 3);
}

TEST_F(SchedulerTest, WhoeverWaitsForATaskThatIsCancelledGoesOnItself) {
  Start(/*slots=*/4, 0, /*prefix_bytes=*/1 << 20);
  absl::Notification go;
  const auto gate = Hold(go);
  auto first = std::make_shared<SayingTask>(Prompt(200), 5);
  int asked = 0;
  first->on_asked = [&] { first->cancelled = ++asked == 4; };
  Submit(first);
  const auto second = Submit(std::make_shared<SayingTask>(Prompt(200), 5));
  go.Notify();
  EXPECT_EQ(first->Wait().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(second->Wait().ok());
  EXPECT_EQ(second->said(), 5);
  ExpectBooksBalance();
}

TEST_F(SchedulerTest, OtherSaltsShareNothing) {
  Start(/*slots=*/1, 0, /*prefix_bytes=*/1 << 20);
  const auto run = [&](const std::string& salt) {
    const auto task = Submit(
        std::make_shared<SayingTask>(Prompt(200), 5, TaskPlace{0, "", salt}));
    EXPECT_TRUE(task->Wait().ok());
    return task->restored();
  };
  EXPECT_EQ(run(""), 0);
  EXPECT_EQ(run("x"), 0);
  EXPECT_EQ(run("y"), 0);
  EXPECT_EQ(run("x"), 192);
  EXPECT_EQ(run(""), 192);
}

}  // namespace
}  // namespace onegrid::inference
