// Continuous batching: one thread that runs all tasks' tokens through the
// engine, step by step.
#ifndef SERVICES_INFERENCE_SCHEDULER_H_
#define SERVICES_INFERENCE_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "services/inference/engine.h"
#include "services/inference/task.h"

namespace onegrid::inference {

struct SchedulerOptions {
  int max_queue = 64;  // tasks waiting for a slot
  // Rows of logits one step computes for tasks that want many (scoring);
  // bounds how long a step lasts.
  int max_step_outputs = 64;
};

// A step holds one token of every sequence that is generating, then prompt
// tokens, oldest task first, up to the engine's max_step_tokens. Tasks get a
// slot in order of arrival. Interrupted tasks leave before the next step.
// Thread-safe.
class Scheduler {
 public:
  // `engine` and `pool` must outlive the scheduler and be used by nothing else.
  Scheduler(Engine& engine, kernels::ThreadPool& pool,
            const SchedulerOptions& options);
  // Ends what is left with Cancelled.
  ~Scheduler();

  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Queues a task; its OnEnd will be called exactly once. ResourceExhausted
  // (QUEUE_FULL): max_queue tasks wait already. Unavailable (SERVER_DRAINING):
  // the scheduler is stopping. On error the task is not touched.
  absl::Status Submit(std::shared_ptr<Task> task);

  struct Load {
    int running;
    int queued;
  };
  Load load() const;

 private:
  struct Running {
    std::shared_ptr<Task> task;
    int slot;
    int fed = 0;  // tokens given to the engine
  };
  // Rows of one task in the output of a step.
  struct Output {
    Running* running;
    int index;  // of the token in the sequence
  };

  void Loop();
  bool WaitForWork();
  void DropInterrupted();
  void StartQueued();
  // Chooses this step's tokens; outputs_ and fed follow.
  std::vector<Chunk> PlanStep();
  void AddChunk(Running& running, int count, std::vector<Chunk>* chunks);
  void DeliverLogits();
  void FinishStep();
  void End(Running& running, const absl::Status& status);

  Engine& engine_;
  kernels::ThreadPool& pool_;
  const SchedulerOptions options_;

  // The scheduler thread's own.
  std::vector<std::unique_ptr<Running>> running_;
  std::vector<int> free_slots_;
  std::vector<Output> outputs_;

  mutable absl::Mutex mu_;
  std::deque<std::shared_ptr<Task>> queue_ ABSL_GUARDED_BY(mu_);
  int running_count_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;

  std::thread thread_;  // last: starts when all else is ready
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_SCHEDULER_H_
