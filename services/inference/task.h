// One request as the scheduler sees it: tokens to feed, rows to look at.
#ifndef SERVICES_INFERENCE_TASK_H_
#define SERVICES_INFERENCE_TASK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/cpu/top_products.h"

namespace onegrid::inference {

class LoraAdapter;
// Where a task stands among others.
struct TaskPlace {
  int priority = 0;        // higher ones first
  std::string caller;      // those of one priority get their turns in fairness
  std::string cache_salt;  // keys and values are shared between equal ones
};

// All calls come from the scheduler's thread, except OnLogits and OnTopLogits,
// which may be called for different rows at once from several.
class Task {
 public:
  virtual ~Task() = default;

  // Every token of the sequence so far. Only grows.
  virtual absl::Span<const int32_t> tokens() const = 0;

  // The most that there can be. Constant.
  virtual int most_tokens() const = 0;

  // Constant; thread-safe.
  virtual const TaskPlace& place() const = 0;

  // Index into tokens() of the first one whose logits are wanted and have not
  // come yet; all after it are wanted too.
  virtual int first_output() const = 0;

  // What the sequence runs with, always the same; null: the model as it is.
  // Lives as long as the task.
  virtual const LoraAdapter* adapter() const { return nullptr; }

  // Cancelled or DeadlineExceeded once nobody wants the result any more.
  virtual absl::Status Interrupted() const = 0;

  // The task left the queue for the first time. Its first `restored` tokens
  // need not run, their keys and values were kept; those after them run in the
  // next step.
  virtual void OnStart(int restored) = 0;

  // The task went back into the queue, as its memory was given to others. Its
  // tokens will run again, without those logits that it had.
  virtual void OnPreempted() {}

  // Guesses of the tokens that follow tokens(), at most `most`, which the
  // scheduler may run in the same step to save some. What the task makes of its
  // sequence must not depend on which of them run.
  virtual std::vector<int32_t> Draft(int most) const {
    static_cast<void>(most);
    return {};
  }

  // logits: [vocabulary], those that follow tokens()[index]; may be changed.
  // Where guesses were run with tokens(), rows come one after the other, each
  // only if the row before added the token that had been guessed.
  virtual void OnLogits(int index, absl::Span<float> logits) = 0;

  // How many of the largest logits of each row are all that is needed of it; 0:
  // the whole row is. At most the vocabulary.
  virtual int top_logits() const { return 0; }

  // May come in the place of OnLogits if top_logits() is not 0: so many tokens
  // and their logits, largest first, ties by lower token.
  virtual void OnTopLogits(int index, absl::Span<const cpu::TopProduct> best) {
    static_cast<void>(index);
    static_cast<void>(best);
  }

  // Called once after a step's OnLogits calls for this task. True ends it.
  virtual bool OnStepDone() = 0;

  // Last call. Not OK: interrupted, or the engine failed.
  virtual void OnEnd(const absl::Status& status) = 0;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_TASK_H_
