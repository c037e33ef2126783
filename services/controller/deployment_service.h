// Records which models should be served. Thread-safe.
#ifndef SERVICES_CONTROLLER_DEPLOYMENT_SERVICE_H_
#define SERVICES_CONTROLLER_DEPLOYMENT_SERVICE_H_

#include <string>

#include "absl/status/statusor.h"
#include "proto/onegrid/v1/deployment.pb.h"
#include "services/controller/inference_runner.h"
#include "services/controller/registry.h"

namespace onegrid::controller {

// Logic of DeploymentService; errors as in deployment.proto, and
// FailedPrecondition (RUNNER_UNAVAILABLE). The servers themselves are the
// business of ServingDriver.
class DeploymentService {
 public:
  DeploymentService(const ControllerContext* context,
                    const InferenceRunner* runner)
      : context_(context), runner_(runner) {}

  // `parent` is the pipeline run that asks, or empty.
  absl::StatusOr<v1::Deployment> CreateDeployment(
      const v1::CreateDeploymentRequest& request,
      const std::string& parent = "");
  absl::StatusOr<v1::Deployment> GetDeployment(
      const v1::GetDeploymentRequest& request);
  absl::StatusOr<v1::ListDeploymentsResponse> ListDeployments(
      const v1::ListDeploymentsRequest& request);
  absl::StatusOr<v1::DeleteDeploymentResponse> DeleteDeployment(
      const v1::DeleteDeploymentRequest& request);

 private:
  const ControllerContext* context_;
  const InferenceRunner* runner_;
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_DEPLOYMENT_SERVICE_H_
