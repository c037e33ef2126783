#include "services/inference/score_task.h"

#include <algorithm>
#include <utility>

#include "services/inference/sampler.h"

namespace onegrid::inference {

ScoreTask::ScoreTask(ScoreOptions options, CallContext context)
    : options_(std::move(options)),
      context_(std::move(context)),
      positions_(static_cast<int>(options_.tokens.size()) -
                 options_.first_scored) {
  const size_t positions = positions_;
  scores_.logprobs.resize(positions);
  scores_.argmax.resize(positions);
  scores_.top_ids.resize(positions * options_.top_n);
  scores_.top_logprobs.resize(positions * options_.top_n);
  scores_.candidate_logprobs.resize(positions *
                                    options_.candidates_per_position);
}

absl::StatusOr<Scores> ScoreTask::Wait() {
  ended_.WaitForNotification();
  if (!status_.ok()) return status_;
  return std::move(scores_);
}

void ScoreTask::OnLogits(int index, absl::Span<float> logits) {
  const size_t position = index - (options_.first_scored - 1);
  const double log_sum = LogSumExp(logits);
  const auto logprob = [&](int32_t token) {
    return static_cast<float>(logits[token] - log_sum);
  };
  scores_.logprobs[position] = logprob(options_.tokens[index + 1]);
  scores_.argmax[position] = ArgMax(logits);

  const std::vector<int32_t> top = TopN(logits, options_.top_n);
  const size_t top_begin = position * options_.top_n;
  for (size_t i = 0; i < top.size(); ++i) {
    scores_.top_ids[top_begin + i] = top[i];
    scores_.top_logprobs[top_begin + i] = logprob(top[i]);
  }
  const size_t width = options_.candidates_per_position;
  for (size_t i = position * width; i < (position + 1) * width; ++i) {
    scores_.candidate_logprobs[i] = logprob(options_.candidates[i]);
  }
  positions_done_.fetch_add(1, std::memory_order_relaxed);
}

bool ScoreTask::OnStepDone() { return positions_done_.load() == positions_; }

void ScoreTask::OnEnd(const absl::Status& status) {
  status_ = status;
  ended_.Notify();
}

}  // namespace onegrid::inference
