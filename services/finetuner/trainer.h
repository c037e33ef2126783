// Optimizer steps on a tunable over packed examples, resumable at any step.
#ifndef SERVICES_FINETUNER_TRAINER_H_
#define SERVICES_FINETUNER_TRAINER_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/finetuner/packing.h"
#include "services/finetuner/tensor_file.h"
#include "services/finetuner/tunable.h"
#include "services/finetuner/tuning_options.h"

namespace onegrid::finetuner {

// What one optimizer step did.
struct StepMetrics {
  int64_t step = 0;  // 1 for the first.
  double loss = 0;   // Cross-entropy, mean nats per labelled token.
  double kl = 0;     // To the teacher, likewise.
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

// Owns optimizer state, data order and position, and the best parameters seen.
// Not thread-safe.
class Trainer {
 public:
  // All must outlive the trainer. `examples` is not empty.
  Trainer(Tunable* tunable, absl::Span<const TokenizedExample> examples,
          const StageOptions& options);

  int64_t step() const { return step_; }
  int64_t total_steps() const { return total_steps_; }

  // One AdamW step over sequences_per_step sequences, loss and gradients
  // divided by the number of labels of all of them. Cancelled when `cancelled`
  // says so between two sequences; the parameters are then as before.
  absl::StatusOr<StepMetrics> Step(const std::function<bool()>& cancelled);

  // Tells how good the present parameters are: smaller is better. The best are
  // kept.
  void Offer(double score);
  bool has_best() const { return best_.defined(); }
  double best_score() const { return best_score_; }
  int64_t best_step() const { return best_step_; }
  // Offers in a row that were no better than the best.
  int64_t offers_since_best() const { return offers_since_best_; }
  // Goes back to the best parameters, if any were offered.
  void RestoreBest();

  // Everything needed to go on as if never stopped: parameters, optimizer, the
  // best parameters, random state, position in the data. `stage` is kept as
  // metadata and `extra` as more tensors.
  absl::Status Save(const std::string& path, const std::string& stage,
                    const std::map<std::string, at::Tensor>& extra) const;
  // FailedPrecondition (CHECKPOINT_MISMATCH): written by a run with other
  // parameters, dataset size, seed or schedule. DataLoss (CORRUPT_FILE).
  absl::Status Load(const TensorFile& file, const std::string& path);

 private:
  std::vector<const PackedSequence*> NextSequences();
  void PackEpoch(int64_t epoch);
  void ApplyGradients(double gradient_scale, double learning_rate);
  std::string Fingerprint() const;

  Tunable* const tunable_;
  const absl::Span<const TokenizedExample> examples_;
  const StageOptions options_;
  int64_t total_steps_ = 0;
  int64_t step_ = 0;
  int64_t epoch_ = 0;
  int64_t next_sequence_ = 0;              // In sequences_.
  std::vector<PackedSequence> sequences_;  // Of epoch_.
  at::Tensor first_moment_;
  at::Tensor second_moment_;
  at::Generator dropout_random_;
  at::Tensor best_;  // Undefined before the first offer.
  double best_score_ = 0;
  int64_t best_step_ = 0;
  int64_t offers_since_best_ = 0;
};

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_TRAINER_H_
