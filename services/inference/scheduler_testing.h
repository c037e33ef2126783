// Tasks that say what is done with them, and a scheduler of a tiny engine to
// run them.
#ifndef SERVICES_INFERENCE_SCHEDULER_TESTING_H_
#define SERVICES_INFERENCE_SCHEDULER_TESTING_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/top_products.h"
#include "services/inference/engine.h"
#include "services/inference/gemma_weights.h"
#include "services/inference/scheduler.h"
#include "services/inference/task.h"
#include "services/inference/tiny_model.h"

namespace onegrid::inference {

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
  void OnLogits(int, absl::Span<float>) override { Say(); }
  int top_logits() const override { return top_logits_wanted; }
  void OnTopLogits(int, absl::Span<const cpu::TopProduct> best) override {
    EXPECT_EQ(best.size(), static_cast<size_t>(top_logits_wanted));
    ++top_logits_given;
    Say();
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
  int top_logits_wanted = 0;
  int top_logits_given = 0;  // times

 private:
  void Say() {
    tokens_.push_back(kTinyLetterA);
    if (on_token) on_token(said());
  }

  const int prompt_;
  const int outputs_;
  const TaskPlace place_;
  std::vector<int32_t> tokens_;
  int restored_ = -1;
  int preemptions_ = 0;
  absl::Status status_;
  absl::Notification ended_;
};

// BOS and letters that follow from the seed, `length` tokens.
std::vector<int32_t> Prompt(int length, int seed = 0);

class SchedulerTest : public testing::Test {
 protected:
  // Ends the scheduler there was, and begins one of its own engine. kv_limit:
  // see KvRoom.
  void Start(int slots, int64_t kv_limit = 0, int64_t prefix_bytes = 0,
             int max_queue = 64,
             absl::Duration max_queue_delay = absl::InfiniteDuration(),
             int calm_queue = 32);

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

  // How much a task of 20 letters says while `late` runs beside it to its end.
  int SaidBeside(const std::shared_ptr<SayingTask>& late) {
    auto first = std::make_shared<SayingTask>(Prompt(4), 20);
    int before = 0, after = 0;
    first->on_token = [&](int said) {
      if (said != 2) return;
      before = said;
      EXPECT_TRUE(scheduler_->Submit(late).ok());
    };
    late->on_end = [&] { after = first->said(); };
    Submit(first);
    EXPECT_TRUE(first->Wait().ok());
    EXPECT_TRUE(late->Wait().ok());
    return after - before;
  }

  void ExpectBooksBalance() {
    const Scheduler::Load load = scheduler_->load();
    EXPECT_EQ(load.running, 0);
    EXPECT_EQ(load.queued, 0);
    EXPECT_EQ(load.kv_bytes, load.prefix_bytes);
  }

  kernels::ThreadPool pool_{2};
  StepOptions step_;  // of what is started next
  std::unique_ptr<GemmaWeights> weights_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Scheduler> scheduler_;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_SCHEDULER_TESTING_H_
