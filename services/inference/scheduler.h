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
#include "services/inference/draft_policy.h"
#include "services/inference/engine.h"
#include "services/inference/task.h"

namespace onegrid::inference {

// Whether tokens that tasks guess are run ahead. Results do not depend on it.
enum class Drafting {
  kOff,
  kAuto,    // where measured steps and guesses say that it pays
  kAlways,  // as many as there are, for tests and measurements
};

struct SchedulerOptions {
  int max_queue = 64;  // tasks waiting for a slot
  // Rows of logits one step computes for tasks that want many (scoring);
  // bounds how long a step lasts.
  int max_step_outputs = 64;
  Drafting drafting = Drafting::kAuto;
  // Most guesses of one sequence in a step, and no more than the engine's
  // max_rollback.
  int max_draft = 8;
};

// A step holds one token of every sequence that is generating, each with
// guesses of the next ones where that pays, then prompt tokens, oldest task
// first, up to the engine's max_step_tokens. Tasks get a
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

  // Guesses that ran, and those of them that were right, since the start.
  struct DraftCount {
    int64_t tried = 0;
    int64_t accepted = 0;
  };
  DraftCount drafts() const;

  // Tokens of the tasks that were started, and those of them whose keys and
  // values were kept from earlier ones, since the start.
  struct PrefixCount {
    int64_t asked = 0;
    int64_t restored = 0;
  };
  PrefixCount prefixes() const;

 private:
  struct Running {
    std::shared_ptr<Task> task;
    int slot;
    int fed = 0;  // tokens given to the engine
    DraftRecord record;
    // Of this step: guesses run after the task's tokens, and whether one was
    // wrong, which makes the rest of no use.
    std::vector<int32_t> draft;
    bool rejected = false;
    std::vector<int32_t> drafted_chunk;  // the last token and the guesses
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
  // A generating task's token, with guesses if there is room and it pays.
  // Returns the tokens added.
  int AddGenerating(Running& running, int rows, int room,
                    std::vector<Chunk>* chunks);
  void DeliverLogits();
  void DeliverRow(const Output& output, absl::Span<float> logits);
  void FinishStep();
  // Counts a task's guesses and takes the wrong ones back.
  void SettleDraft(Running& running);
  void Share(const Running& running);
  void End(Running& running, const absl::Status& status);
  // Gives a started task its slot and what is kept of its tokens.
  void Begin(Running& running);

  Engine& engine_;
  kernels::ThreadPool& pool_;
  const SchedulerOptions options_;
  const int max_draft_;

  // The scheduler thread's own.
  std::vector<std::unique_ptr<Running>> running_;
  std::vector<int> free_slots_;
  std::vector<Output> outputs_;
  StepCost step_cost_;
  bool step_has_prompt_ = false;

  mutable absl::Mutex mu_;
  std::deque<std::shared_ptr<Task>> queue_ ABSL_GUARDED_BY(mu_);
  int running_count_ ABSL_GUARDED_BY(mu_) = 0;
  DraftCount drafts_ ABSL_GUARDED_BY(mu_);
  PrefixCount prefixes_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;

  std::thread thread_;  // last: starts when all else is ready
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_SCHEDULER_H_
