// Puts together what a worker needs for an attempt.
#ifndef SERVICES_CONTROLLER_WORK_ITEMS_H_
#define SERVICES_CONTROLLER_WORK_ITEMS_H_

#include <string>

#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "proto/onegrid/v1/pipeline.pb.h"
#include "proto/onegrid/v1/worker.pb.h"
#include "services/controller/store.h"

namespace onegrid::controller {

// Inference servers that serve one evaluation.
struct EvaluationServers {
  std::string served_endpoint;
  // EQUIVALENCE only.
  std::string float_endpoint;
};

// The given thresholds with defaults in place of zeros.
v1::EquivalenceThresholds CompleteThresholds(
    const v1::EquivalenceThresholds& thresholds);

// Spec of the job `resource` as it is stored; the attempt is left for the
// caller. `servers` is used for evaluations only. NotFound: something that it
// depends on was deleted.
absl::StatusOr<v1::WorkItem> BuildWorkItem(
    StoreTransaction& transaction, const google::protobuf::Message& resource,
    const EvaluationServers& servers);

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_WORK_ITEMS_H_
