// Makes the inference servers that run those that should: one for each
// deployment, and one or two for the evaluation whose turn it is.
#ifndef SERVICES_CONTROLLER_SERVING_DRIVER_H_
#define SERVICES_CONTROLLER_SERVING_DRIVER_H_

#include <map>
#include <optional>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "proto/onegrid/v1/deployment.pb.h"
#include "services/controller/inference_runner.h"
#include "services/controller/registry.h"
#include "services/controller/work_items.h"

namespace onegrid::controller {

// Reconcile from one thread; ServersOf from any.
class ServingDriver {
 public:
  ServingDriver(const ControllerContext* context, InferenceRunner* runner)
      : context_(context), runner_(runner) {}

  // Compares what is wanted with what runs, and acts on the difference once:
  // starts and stops servers, moves deployments between their states, fails
  // evaluations whose servers do not start. Errors of the store.
  absl::Status Reconcile();

  // The servers of an evaluation, once all that it needs serve.
  std::optional<EvaluationServers> ServersOf(const std::string& evaluation);

 private:
  // Sets what to serve for a base model or an export.
  absl::Status FindModel(StoreTransaction& transaction,
                         const std::string& model, ServerSpec* spec) const;
  absl::Status ReconcileDeployments(std::set<std::string>* wanted);
  absl::Status ReconcileDeployment(const v1::Deployment& deployment,
                                   std::set<std::string>* wanted);
  absl::Status ReconcileEvaluations(std::set<std::string>* wanted);
  absl::Status StartEvaluationServers(const std::string& name,
                                      std::set<std::string>* wanted);
  absl::Status FailEvaluation(const std::string& name, const absl::Status& why);

  const ControllerContext* context_;
  InferenceRunner* runner_;
  absl::Mutex mutex_;
  std::map<std::string, EvaluationServers> ready_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_SERVING_DRIVER_H_
