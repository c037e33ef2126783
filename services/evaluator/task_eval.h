// Accuracy and perplexity of a dataset split through an inference server.
#ifndef SERVICES_EVALUATOR_TASK_EVAL_H_
#define SERVICES_EVALUATOR_TASK_EVAL_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/onegrid/v1/common.pb.h"
#include "services/evaluator/engine_client.h"
#include "services/model/jsonl_dataset.h"

namespace onegrid::evaluator {

// Called after each unit of work with the units done and in all and the
// figures so far (null for stages without any). From one thread at a time. A
// non-OK status stops the evaluation and is returned by it.
using EvalProgressFn =
    std::function<absl::Status(absl::string_view stage, int64_t done,
                               int64_t total, const v1::ModelMetrics* so_far)>;

struct TaskOptions {
  // Examples in flight at once, so that the server can batch. At least 1.
  int in_flight = 8;
  EvalProgressFn progress;
};

// For each example: tokens = BOS + prompt, completion, EOS, tokenized by the
// server, prompt and completion apart. Perplexity is over the completion's
// tokens and EOS. An example counts as right if the greedy continuation of
// the prompt is the completion's tokens and then an end token.
//
// INVALID_ARGUMENT: no examples. The first error of any call ends it.
absl::StatusOr<v1::ModelMetrics> EvaluateTask(
    EngineClient& engine, const std::vector<model::Example>& examples,
    const TaskOptions& options);

// Speeds of a single stream, medians over five generations of 64 tokens after
// prompts of up to 512 tokens put together from the examples.
struct Speeds {
  double prefill_tokens_per_second = 0;
  double decode_tokens_per_second = 0;
};
absl::StatusOr<Speeds> MeasureSpeeds(
    EngineClient& engine, const std::vector<model::Example>& examples,
    const EvalProgressFn& progress);

}  // namespace onegrid::evaluator

#endif  // SERVICES_EVALUATOR_TASK_EVAL_H_
