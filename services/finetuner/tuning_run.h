// One tuning run from files to files: learn, fold, evaluate, probe.
// Free of LibTorch types, gRPC and protos.
#ifndef SERVICES_FINETUNER_TUNING_RUN_H_
#define SERVICES_FINETUNER_TUNING_RUN_H_

#include <string>

#include "absl/status/statusor.h"
#include "services/finetuner/tuning_options.h"

namespace onegrid::finetuner {

// Runs in the calling thread with as many compute threads as options.threads.
// Outputs and checkpoints are written into `folder`, which must exist.
//
// Errors: those of ValidateOptions, LoadGridCheckpoint, ReadExamples and
// Trainer::Load; FailedPrecondition (TRAINING_DIVERGED); Cancelled; those of
// host->OnCheckpoint; InvalidArgument (DATASET_SCHEMA_INVALID): a split has no
// example. Running again with resume_from set to a checkpoint of the same job
// gives the same adapter as an uninterrupted run on as many threads.
absl::StatusOr<TuningOutputs> RunTuning(const TuningInputs& inputs,
                                        const TuningOptions& options,
                                        const std::string& folder,
                                        TuningHost* host);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_TUNING_RUN_H_
