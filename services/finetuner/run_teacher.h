// Who a stage of a tuning run is distilled from, and the loss it then takes.
#ifndef SERVICES_FINETUNER_RUN_TEACHER_H_
#define SERVICES_FINETUNER_RUN_TEACHER_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/loss_vocabulary.h"
#include "services/finetuner/objectives.h"
#include "services/finetuner/run_data.h"
#include "services/finetuner/teacher.h"
#include "services/finetuner/tuning_options.h"

namespace onegrid::finetuner {

// Called while a teacher reads the data; returns false to stop.
using TeachProgress = std::function<bool(int64_t done, int64_t total)>;

// InvalidArgument (INVALID_HYPERPARAMETER) if the options ask something of a
// teacher that no stage would have.
absl::Status CheckTeacher(const TuningInputs& inputs,
                          const TuningOptions& options);

// A teacher or none, with all that its stage's loss refers to. Not thread-safe.
class RunTeacher {
 public:
  // Of every stage but the polish: the model that the inputs name, loaded to
  // compute in `compute_type`; none if they name none or options' kl is 0.
  // Errors of LoadFloatModel; Cancelled.
  static absl::StatusOr<RunTeacher> Named(const TuningInputs& inputs,
                                          const TuningOptions& options,
                                          const RunData& data,
                                          at::ScalarType compute_type,
                                          const TeachProgress& progress);

  // Of the polish: `model` with its adapter, which must outlive the teacher;
  // none if options' kl is 0. Cancelled.
  static absl::StatusOr<RunTeacher> Adapted(const GemmaModel& model,
                                            const LoraAdapter& adapter,
                                            const TuningOptions& options,
                                            const RunData& data,
                                            const TeachProgress& progress);

  // The loss of a stage, cross-entropy alone without a teacher. Valid for this
  // teacher's life, moves included.
  Objective StageObjective(const TuningOptions& options, bool as_served) const;

 private:
  absl::Status Read(const GemmaModel& model, const LoraAdapter* adapter,
                    const TuningOptions& options, const RunData& data,
                    const TeachProgress& progress);

  std::unique_ptr<GemmaModel> model_;  // Of Named.
  std::unique_ptr<Teacher> teacher_;
  std::unique_ptr<LossVocabulary> vocabulary_;  // Null: all tokens.
};

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_RUN_TEACHER_H_
