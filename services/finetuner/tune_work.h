// TuneWork items of the controller, run through RunTuning.
#ifndef SERVICES_FINETUNER_TUNE_WORK_H_
#define SERVICES_FINETUNER_TUNE_WORK_H_

#include "absl/status/statusor.h"
#include "proto/onegrid/v1/worker.pb.h"
#include "services/common/worker.h"
#include "services/finetuner/tuning_options.h"

namespace onegrid::finetuner {

// Options of a job, each unset field with its default. InvalidArgument
// (INVALID_HYPERPARAMETER): a value out of its range. `threads` is used when
// the job names no number.
absl::StatusOr<TuningOptions> OptionsFromWork(const v1::TuneWork& work,
                                              int threads);

// Fetches the inputs, runs, publishes checkpoints and outputs. Errors of
// RunTuning and of the context.
absl::StatusOr<v1::WorkResult> Tune(common::WorkContext& context, int threads);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_TUNE_WORK_H_
