// The evaluator's work items.
#ifndef SERVICES_EVALUATOR_EVALUATE_WORK_H_
#define SERVICES_EVALUATOR_EVALUATE_WORK_H_

#include "absl/status/statusor.h"
#include "proto/onegrid/v1/worker.pb.h"
#include "services/common/worker.h"

namespace onegrid::evaluator {

// Does one EVALUATE work item. TASK sets metrics and speeds; EQUIVALENCE sets
// the level 1 report with level 2 and the verdict filled in. A verdict of
// FAILED_EQUIVALENCE is a result, not an error.
//
// ABORTED: cancelled. FAILED_PRECONDITION (ARTIFACT_MISMATCH): a server does
// not serve the artifact. UNAVAILABLE (SERVER_UNREACHABLE). Errors of the
// context, of the files and of the servers' rpcs.
absl::StatusOr<v1::WorkResult> HandleWork(common::WorkContext& context,
                                          int in_flight);

}  // namespace onegrid::evaluator

#endif  // SERVICES_EVALUATOR_EVALUATE_WORK_H_
