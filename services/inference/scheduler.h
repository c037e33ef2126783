// Continuous batching: one thread that runs all tasks' tokens through the
// engine, step by step, within a limit of bytes of keys and values.
#ifndef SERVICES_INFERENCE_SCHEDULER_H_
#define SERVICES_INFERENCE_SCHEDULER_H_

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "kernels/base/thread_pool.h"
#include "services/inference/engine.h"
#include "services/inference/fair_queue.h"
#include "services/inference/kv_room.h"
#include "services/inference/step_runner.h"
#include "services/inference/task.h"

namespace onegrid::inference {

struct SchedulerOptions {
  int max_queue = 64;  // tasks waiting for their first slot
  // How long a task may wait for that while more wait than calm_queue.
  absl::Duration max_queue_delay = absl::InfiniteDuration();
  int calm_queue = 32;
  int64_t kv_limit = 0;  // see KvRoom
  StepOptions step;
};

// Tasks wait in a FairQueue, which says whose turn it is, and run in slots.
//
// Running tasks are ordered by rank, those of one rank by when they were first
// started. A task that lacks memory for its next token gets it from, in this
// order: kept prefixes that no sequence uses, those not used for longest first;
// the last of the tasks behind it, which is preempted: its memory is given
// back, it waits at the head of its line, and its tokens run again later, with
// the same results. The last task itself waits in its slot. So the first one
// always goes on, and as a preempted task keeps its place among those started,
// each becomes the first one in time.
//
// A waiting task starts when there is a slot and memory for what it and all
// that run have to say for a page more; a task of higher rank takes both from
// the last running ones of lower rank.
//
// A task waits for pages of its prompt, and one that begins as its next does,
// that a running one is about to fill, if they are more than what is kept.
//
// Interrupted tasks leave before the next step, out of slots and queue.
// Thread-safe.
class Scheduler {
 public:
  // `engine` and `pool` must outlive the scheduler; nothing else may use
  // `engine`.
  Scheduler(Engine& engine, kernels::ThreadPool& pool,
            const SchedulerOptions& options);
  // Ends what is left with Unavailable (SERVER_DRAINING).
  ~Scheduler();

  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Queues a task; its OnEnd will be called exactly once, with
  // ResourceExhausted (QUEUE_FULL) if a later task takes its place in a full
  // queue, or it waited longer than max_queue_delay in a long one. On error the
  // task is not touched: InvalidArgument (KV_BUDGET_EXCEEDED): its most_tokens
  // need more memory than the limit. ResourceExhausted (QUEUE_FULL): see
  // FairQueue. Unavailable (SERVER_DRAINING): after Drain, or the scheduler is
  // stopping.
  absl::Status Submit(std::shared_ptr<Task> task);

  // From now on Submit takes nothing: Unavailable (SERVER_DRAINING). What it
  // took goes on.
  void Drain();

  // Counts are since the start.
  struct Load {
    int running = 0;
    int queued = 0;
    // Bytes of keys and values: all, pages that several use counted once, and
    // those of kept prefixes.
    int64_t kv_bytes = 0;
    int64_t prefix_bytes = 0;
    // Of those, the ones that no sequence used, as of a step that ended at most
    // a tenth of a second before the last one.
    int64_t idle_prefix_bytes = 0;
    int64_t preemptions = 0;
    // Tokens of the tasks that were started, and those of them whose keys and
    // values were kept from earlier ones. Restarts do not count.
    int64_t prefix_tokens_asked = 0;
    int64_t prefix_tokens_restored = 0;
    DraftCount drafts;
  };
  // As of the last start, step or end of a task.
  Load load() const;
  int64_t kv_limit() const { return room_.limit(); }
  // Of the longest task that fits.
  int64_t most_tokens() const { return room_.most_tokens(); }

 private:
  void Loop();
  bool WaitForWork();
  void DropInterrupted();
  // Ends tasks that waited too long in a queue too long, and could not start
  // now.
  void DropLate();
  // Ends tasks whose place in the queue was taken.
  void EndDisplaced();
  void StartQueued();
  // Whether there would be a slot and memory for the task if all of lower rank
  // were preempted.
  bool CanPlace(const Waiting& next) const;
  // Finds a slot with memory for the task and begins there with what is kept of
  // its tokens. Null if there is none.
  std::unique_ptr<Running> Place(const Waiting& next);
  // Whether there is memory for the task and all that run.
  bool Fits(const Running& next) const;
  // Whether a running task is about to fill pages that the task needs.
  bool IsBeingFilled(const Waiting& next) const;
  // Preempts the last running task if it is of a lower rank. Or not: false.
  bool PreemptBelow(int rank);
  void PreemptLast();
  // Takes room for a token of each running task.
  void MakeRoom();
  void FinishStep();
  void End(Running& running, const absl::Status& status);
  void ChargeOutput(Running& running) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Makes the engine's figures those of `load`.
  void Publish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Engine& engine_;
  const SchedulerOptions options_;

  // The scheduler thread's own.
  KvRoom room_;
  StepRunner step_;
  RunningTasks running_;
  std::vector<int> free_slots_;
  int64_t starts_ = 0;

  mutable absl::Mutex mu_;
  FairQueue queue_ ABSL_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<Task>> displaced_ ABSL_GUARDED_BY(mu_);
  Load load_ ABSL_GUARDED_BY(mu_);  // but for `queued`
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  absl::Time idle_bytes_time_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();

  std::thread thread_;  // last: starts when all else is ready
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_SCHEDULER_H_
