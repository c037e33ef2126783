// One step: which tokens of the running tasks go through the engine, and what
// the tasks get of it.
#ifndef SERVICES_INFERENCE_STEP_RUNNER_H_
#define SERVICES_INFERENCE_STEP_RUNNER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/top_products.h"
#include "services/inference/draft_policy.h"
#include "services/inference/engine.h"
#include "services/inference/fair_queue.h"
#include "services/inference/kv_room.h"

namespace onegrid::inference {

// Whether tokens that tasks guess are run ahead. Results do not depend on it.
enum class Drafting {
  kOff,
  kAuto,    // where measured steps and guesses say that it pays
  kAlways,  // as many as there are, for tests and measurements
};

struct StepOptions {
  // Tokens of a step in which a task generates, which waits for its next one as
  // long as the step lasts; no more than the engine's max_step_tokens.
  int max_shared_tokens = 256;
  // Rows of logits one step computes for tasks that want many (scoring);
  // bounds how long a step lasts.
  int max_step_outputs = 64;
  Drafting drafting = Drafting::kAuto;
  // Most guesses of one sequence in a step, and no more than the engine's
  // max_rollback.
  int max_draft = 8;
};

// A task in a slot.
struct Running {
  Waiting entry;  // its place in the queue, should it go back
  int slot = 0;
  int fed = 0;  // tokens given to the engine
  // Tokens of the task that its caller's account has.
  size_t charged = 0;
  // Whether it has a token in this step, and if not, for want of memory.
  bool has_room = true;
  bool starved = false;
  DraftRecord record;
  // Of this step: guesses run after the task's tokens, and whether one was
  // wrong, which makes the rest of no use.
  std::vector<int32_t> draft;
  bool rejected = false;
  std::vector<int32_t> drafted_chunk;  // the last token and the guesses

  Task& task() const { return *entry.task; }
  int pending() const { return static_cast<int>(task().tokens().size()) - fed; }
  // Its next token is one that it said.
  bool generating() const { return fed > 0 && pending() == 1; }
};

// Those with the best claim to memory first.
using RunningTasks = std::vector<std::unique_ptr<Running>>;

// Guesses that ran, and those of them that were right.
struct DraftCount {
  int64_t tried = 0;
  int64_t accepted = 0;
};

// What of a task that reads its prompt, or scores one, fits in a step of which
// `tokens` and `outputs` are left, and how much of that has an output.
struct PromptShare {
  int tokens;
  int outputs;
};
PromptShare ShareOf(const Running& running, int tokens, int outputs);

// Tokens of a step in which `generating` tasks generate.
int StepTokens(int generating, const StepOptions& options,
               const Engine& engine);

// A step holds one token of every sequence that is generating, each with
// guesses of the next ones where that pays, then prompt tokens, in the order of
// the tasks, up to StepTokens.
// Thread-compatible.
class StepRunner {
 public:
  // `engine` and `pool` must outlive the runner.
  StepRunner(Engine& engine, kernels::ThreadPool& pool,
             const StepOptions& options);

  // Runs a step of those tasks that have room for a token, which at least one
  // has, and gives them their logits. Errors of Engine::Forward: nothing ran.
  absl::Status Run(const RunningTasks& tasks, KvRoom& room);

  // The tasks that got logits in the last step, until the next one.
  std::vector<Running*> stepped() const;
  // Ends the step of such a task that goes on: counts its guesses and takes the
  // wrong ones back.
  void Settle(Running& running);
  // Takes all guesses of the step back: of a task that has ended.
  void TakeBackGuesses(Running& running);

  // Since the start.
  const DraftCount& drafts() const { return drafts_; }

 private:
  // Rows of one task in the output of a step.
  struct Output {
    Running* running;
    int index;  // of the token in the sequence
  };

  // Chooses the tokens; outputs_ and fed follow.
  std::vector<Chunk> Plan(const RunningTasks& tasks, KvRoom& room);
  void AddChunk(Running& running, int count, std::vector<Chunk>* chunks);
  // A generating task's token, with guesses if there is room and it pays.
  // Returns the tokens added.
  int AddGenerating(Running& running, int rows, int most, KvRoom& room,
                    std::vector<Chunk>* chunks);
  void DeliverLogits();
  // Those of `count` outputs from `first` on.
  void DeliverRows(int first, int count);
  // The largest logits of these outputs; empty if a task needs all.
  absl::Span<const std::vector<cpu::TopProduct>> TopLogits(int first,
                                                           int count);
  // Calls give with the output's task unless a guess before it was wrong.
  template <typename Give>
  void DeliverRow(const Output& output, const Give& give);

  Engine& engine_;
  kernels::ThreadPool& pool_;
  const StepOptions options_;
  const int max_draft_;
  std::vector<Output> outputs_;
  bool has_prompt_ = false;
  StepCost cost_;
  DraftCount drafts_;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_STEP_RUNNER_H_
