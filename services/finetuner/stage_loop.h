// Runs one training stage to its end: steps, progress, metrics, evaluation and
// choice of the best parameters, early stopping, checkpoints.
#ifndef SERVICES_FINETUNER_STAGE_LOOP_H_
#define SERVICES_FINETUNER_STAGE_LOOP_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/finetuner/tensor_file.h"
#include "services/finetuner/trainer.h"
#include "services/finetuner/tuning_options.h"

namespace onegrid::finetuner {

// A stage and what it needs. All referred to must outlive the call.
struct Stage {
  std::string name;  // "learn", "polish" or "train".
  Trainer* trainer = nullptr;
  TuningHost* host = nullptr;
  int64_t checkpoint_steps = 25;
  std::string checkpoint_path;
  // Scores the present parameters, smaller is better; empty: the last
  // parameters are taken. Called before the first step, every eval_steps steps
  // and after the last one.
  std::function<absl::StatusOr<double>()> evaluate;
  int64_t eval_steps = 1;
  int64_t patience = 0;  // See TuningOptions.
  // Of earlier stages, kept in every checkpoint.
  std::map<std::string, at::Tensor> extra;
};

// What a stage did, in this process.
struct StageSpeed {
  int64_t tokens = 0;
  double seconds = 0;
};

// Goes on from the trainer's step. Metrics lines are appended to
// `metrics_jsonl`. At the end the trainer has its best parameters. Errors of
// Trainer::Step and Save, of evaluate and of the host.
absl::StatusOr<StageSpeed> RunStage(const Stage& stage,
                                    std::string* metrics_jsonl);

// The metrics text that RunStage kept in a checkpoint.
absl::StatusOr<std::string> MetricsOf(const TensorFile& file);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_STAGE_LOOP_H_
