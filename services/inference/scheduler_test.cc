// Goal: whose turn it is, and whose memory, on a tiny engine with tasks that
// say what is done with them.
#include "services/inference/scheduler.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/base/thread_pool.h"
#include "services/common/error_info.h"
#include "services/inference/engine.h"
#include "services/inference/gemma_weights.h"
#include "services/inference/tiny_model.h"
#include "services/model/gguf_reader.h"

namespace onegrid::inference {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Says `outputs` letters after a prompt.
class SayingTask : public Task {
 public:
  SayingTask(std::vector<int32_t> prompt, int outputs, TaskPlace place = {})
      : prompt_(static_cast<int>(prompt.size())),
        outputs_(outputs),
        place_(std::move(place)),
        tokens_(std::move(prompt)) {}

  absl::Span<const int32_t> tokens() const override { return tokens_; }
  int most_tokens() const override { return prompt_ + outputs_; }
  const TaskPlace& place() const override { return place_; }
  int first_output() const override {
    return static_cast<int>(tokens_.size()) - 1;
  }
  absl::Status Interrupted() const override {
    if (on_asked) on_asked();
    return cancelled ? absl::CancelledError("") : absl::OkStatus();
  }
  void OnStart(int restored) override { restored_ = restored; }
  void OnPreempted() override { ++preemptions_; }
  void OnLogits(int, absl::Span<float>) override {
    tokens_.push_back(kTinyLetterA);
    if (on_token) on_token(said());
  }
  bool OnStepDone() override { return said() >= outputs_; }
  void OnEnd(const absl::Status& status) override {
    status_ = status;
    if (on_end) on_end();
    ended_.Notify();
  }

  absl::Status Wait() {
    ended_.WaitForNotification();
    return status_;
  }
  bool ended() const { return ended_.HasBeenNotified(); }
  int said() const { return static_cast<int>(tokens_.size()) - prompt_; }
  int restored() const { return restored_; }
  int preemptions() const { return preemptions_; }

  // On the scheduler's threads.
  std::function<void()> on_asked;
  std::function<void(int said)> on_token;
  std::function<void()> on_end;
  std::atomic<bool> cancelled = false;

 private:
  const int prompt_;
  const int outputs_;
  const TaskPlace place_;
  std::vector<int32_t> tokens_;
  int restored_ = -1;
  int preemptions_ = 0;
  absl::Status status_;
  absl::Notification ended_;
};

std::vector<int32_t> Prompt(int length, int seed = 0) {
  std::vector<int32_t> tokens = {kTinyBos};
  while (static_cast<int>(tokens.size()) < length) {
    seed = (seed * 29 + 7) % 1009;
    tokens.push_back(kTinyLetterA + seed % 26);
  }
  return tokens;
}

class SchedulerTest : public testing::Test {
 protected:
  void Start(int slots, int64_t kv_limit = 0, int64_t prefix_bytes = 0,
             int max_queue = 64,
             absl::Duration max_queue_delay = absl::InfiniteDuration(),
             int calm_queue = 32) {
    const std::string path = absl::StrCat(
        testing::TempDir(), "/",
        testing::UnitTest::GetInstance()->current_test_info()->name(), ".gguf");
    ASSERT_TRUE(WriteTinyModel(path).ok());
    const auto file = model::GgufFile::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    auto weights = LoadGemmaWeights(**file, pool_);
    ASSERT_TRUE(weights.ok()) << weights.status();
    weights_ = std::make_unique<GemmaWeights>(*std::move(weights));
    EngineOptions options;
    options.max_sequences = slots;
    options.max_context = kTinyContext;
    options.max_step_tokens = 32;
    options.prefix_bytes = prefix_bytes;
    auto engine = Engine::Create(*weights_, options, pool_);
    ASSERT_TRUE(engine.ok()) << engine.status();
    scheduler_.reset();  // Uses the engine there was.
    engine_ = *std::move(engine);
    SchedulerOptions how;
    how.max_queue = max_queue;
    how.max_queue_delay = max_queue_delay;
    how.calm_queue = calm_queue;
    how.kv_limit = kv_limit;
    scheduler_ = std::make_unique<Scheduler>(*engine_, pool_, how);
  }

  // Bytes of the 64 first tokens of a sequence.
  int64_t Block() const { return engine_->kv_cache().block_bytes(); }

  std::shared_ptr<SayingTask> Submit(std::shared_ptr<SayingTask> task) {
    const absl::Status status = scheduler_->Submit(task);
    EXPECT_TRUE(status.ok()) << status;
    return task;
  }
  std::shared_ptr<SayingTask> Submit(int prompt, int outputs, int priority,
                                     const std::string& caller = "") {
    return Submit(std::make_shared<SayingTask>(
        Prompt(prompt), outputs, TaskPlace{priority, caller, ""}));
  }

  // Holds the scheduler up, with this task waiting, until `done` is notified.
  std::shared_ptr<SayingTask> Hold(absl::Notification& done, int prompt = 2) {
    auto task = std::make_shared<SayingTask>(Prompt(prompt), 1,
                                             TaskPlace{100, "gate", ""});
    task->on_asked = [&done] { done.WaitForNotification(); };
    return Submit(std::move(task));
  }

  void ExpectBooksBalance() {
    const Scheduler::Load load = scheduler_->load();
    EXPECT_EQ(load.running, 0);
    EXPECT_EQ(load.queued, 0);
    EXPECT_EQ(load.kv_bytes, load.prefix_bytes);
  }

  kernels::ThreadPool pool_{2};
  std::unique_ptr<GemmaWeights> weights_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Scheduler> scheduler_;
};

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
  scheduler_.reset();
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
    go.Notify();
    for (const auto& task : tasks) EXPECT_TRUE(task->Wait().ok());
    EXPECT_EQ(tasks[0]->restored(), 0);
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
