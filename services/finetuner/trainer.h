// Stage learn: optimizer steps on the adapter, resumable at any step.
#ifndef SERVICES_FINETUNER_TRAINER_H_
#define SERVICES_FINETUNER_TRAINER_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "services/finetuner/gemma3_model.h"
#include "services/finetuner/lora_adapter.h"
#include "services/finetuner/packing.h"
#include "services/finetuner/tuning_options.h"

namespace onegrid::finetuner {

// What one optimizer step did.
struct StepMetrics {
  int64_t step = 0;  // 1 for the first.
  double loss = 0;   // Mean nats per labelled token.
  double learning_rate = 0;
  double grad_norm = 0;  // Before clipping.
  int64_t tokens = 0;    // Run through the model.
  int64_t labels = 0;
  double seconds = 0;
};

// Learning rate of step `step` (0-based): linear warm-up over
// ceil(warmup_ratio * total) steps, then a cosine to zero.
double LearningRateAt(int64_t step, int64_t total, double peak,
                      double warmup_ratio);

// Runs sequences through the model and adds the adapter's gradients of
// sum(loss) / label_count. Returns sum(loss) in nats.
double AccumulateGradients(const Gemma3Model& model, LoraAdapter* adapter,
                           const PackedSequence& sequence, int64_t label_count,
                           at::Generator* dropout_random);

// Owns optimizer state, data order and position. Not thread-safe.
class Trainer {
 public:
  // All must outlive the trainer. `examples` is not empty.
  Trainer(const Gemma3Model& model, LoraAdapter* adapter,
          absl::Span<const TokenizedExample> examples,
          const TuningOptions& options);

  int64_t step() const { return step_; }
  int64_t total_steps() const { return total_steps_; }

  // One AdamW step over sequences_per_step sequences, loss and gradients
  // divided by the number of labels of all of them. Cancelled when `cancelled`
  // says so between two sequences; the parameters are then as before.
  absl::StatusOr<StepMetrics> Step(const std::function<bool()>& cancelled);

  // Everything needed to go on as if never stopped: adapter, optimizer, random
  // state, position in the data, and `metrics_jsonl` so far.
  absl::Status Save(const std::string& path,
                    const std::string& metrics_jsonl) const;
  // FailedPrecondition (CHECKPOINT_MISMATCH): written by a run with another
  // adapter shape, dataset size, seed or schedule.
  absl::Status Load(const std::string& path, std::string* metrics_jsonl);

 private:
  std::vector<const PackedSequence*> NextSequences();
  void PackEpoch(int64_t epoch);
  std::string Fingerprint() const;

  const Gemma3Model& model_;
  LoraAdapter* const adapter_;
  const absl::Span<const TokenizedExample> examples_;
  const TuningOptions options_;
  int64_t total_steps_ = 0;
  int64_t step_ = 0;
  int64_t epoch_ = 0;
  int64_t next_sequence_ = 0;              // In sequences_.
  std::vector<PackedSequence> sequences_;  // Of epoch_.
  at::Tensor first_moment_;
  at::Tensor second_moment_;
  at::Generator dropout_random_;
};

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_TRAINER_H_
