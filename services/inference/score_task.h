// Log-probabilities of a given sequence's tokens.
#ifndef SERVICES_INFERENCE_SCORE_TASK_H_
#define SERVICES_INFERENCE_SCORE_TASK_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "absl/types/span.h"
#include "services/inference/call_context.h"
#include "services/inference/lora.h"
#include "services/inference/task.h"

namespace onegrid::inference {

struct ScoreOptions {
  std::vector<int32_t> tokens;  // n >= 2
  int first_scored = 1;         // 1..n-1; P = n - first_scored positions
  int top_n = 0;
  int candidates_per_position = 0;
  std::vector<int32_t> candidates;             // [P, candidates_per_position]
  std::shared_ptr<const LoraAdapter> adapter;  // null: the model as it is
  TaskPlace place;
  std::function<void()> on_start = [] {};  // on the scheduler's thread
};

// Natural log-probabilities.
struct Scores {
  std::vector<float> logprobs;            // [P]
  std::vector<int32_t> argmax;            // [P]
  std::vector<int32_t> top_ids;           // [P, top_n], most likely first
  std::vector<float> top_logprobs;        // [P, top_n]
  std::vector<float> candidate_logprobs;  // [P, candidates_per_position]
};

// Each row of logits is reduced as it comes; none is kept.
class ScoreTask : public Task {
 public:
  ScoreTask(ScoreOptions options, CallContext context);

  // Blocks until the task has ended, then moves the result out. Once only.
  absl::StatusOr<Scores> Wait();

  // Without the last one: nothing follows it.
  absl::Span<const int32_t> tokens() const override {
    return absl::MakeConstSpan(options_.tokens)
        .first(options_.tokens.size() - 1);
  }
  const LoraAdapter* adapter() const override { return options_.adapter.get(); }
  int most_tokens() const override {
    return static_cast<int>(options_.tokens.size()) - 1;
  }
  const TaskPlace& place() const override { return options_.place; }
  int first_output() const override {
    return options_.first_scored - 1 + positions_done_.load();
  }
  absl::Status Interrupted() const override { return CheckCall(context_); }
  void OnStart(int) override { options_.on_start(); }
  void OnLogits(int index, absl::Span<float> logits) override;
  bool OnStepDone() override;
  void OnEnd(const absl::Status& status) override;

 private:
  const ScoreOptions options_;
  const CallContext context_;
  const int positions_;
  Scores scores_;  // rows of different positions are written concurrently
  std::atomic<int> positions_done_{0};
  absl::Status status_;
  absl::Notification ended_;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_SCORE_TASK_H_
