#include "services/controller/deployment_service.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/controller/model_lookup.h"

namespace onegrid::controller {
namespace {

absl::Status CheckEquivalence(StoreTransaction& transaction,
                              const std::string& model) {
  if (!absl::StartsWith(model, "exports/")) return absl::OkStatus();
  ASSIGN_OR_RETURN(const v1::Export made, Load<v1::Export>(transaction, model));
  const v1::EquivalenceReport::Verdict verdict = made.equivalence().verdict();
  if (verdict == v1::EquivalenceReport::PASSED) return absl::OkStatus();
  const std::string& name = v1::EquivalenceReport::Verdict_Name(verdict);
  return common::MakeError(absl::StatusCode::kFailedPrecondition,
                           "EQUIVALENCE_FAILED",
                           absl::StrCat("the equivalence verdict of ", model,
                                        " is ", name, ", not PASSED"),
                           {{"model", model}, {"verdict", name}});
}

// "int8" or "f32"; "int8" for an empty one.
absl::StatusOr<std::string> CheckType(absl::string_view field,
                                      const std::string& type) {
  if (type.empty()) return std::string("int8");
  if (type == "int8" || type == "f32") return type;
  return InvalidField(field, type, "int8 or f32");
}

}  // namespace

absl::StatusOr<v1::Deployment> DeploymentService::CreateDeployment(
    const v1::CreateDeploymentRequest& request, const std::string& parent) {
  RETURN_IF_ERROR(runner_->CheckCanDeploy());
  CreateCall call;
  call.id = request.deployment_id();
  call.request_id = request.request_id();
  call.request = &request;
  call.parent = parent;
  return Create<v1::Deployment>(
      *context_, call,
      [&](StoreTransaction& transaction) -> absl::StatusOr<v1::Deployment> {
        const v1::Deployment& in = request.deployment();
        v1::Deployment deployment;
        deployment.set_model(in.model());
        RETURN_IF_ERROR(FindGguf(transaction, in.model()).status());
        RETURN_IF_ERROR(CheckEquivalence(transaction, in.model()));
        ASSIGN_OR_RETURN(*deployment.mutable_kv_cache(),
                         CheckType("kv_cache", in.kv_cache()));
        ASSIGN_OR_RETURN(*deployment.mutable_activations(),
                         CheckType("activations", in.activations()));
        deployment.set_state(v1::Deployment::STARTING);
        return deployment;
      });
}

absl::StatusOr<v1::Deployment> DeploymentService::GetDeployment(
    const v1::GetDeploymentRequest& request) {
  return Get<v1::Deployment>(*context_, request.name());
}

absl::StatusOr<v1::ListDeploymentsResponse> DeploymentService::ListDeployments(
    const v1::ListDeploymentsRequest& request) {
  v1::ListDeploymentsResponse response;
  ASSIGN_OR_RETURN(
      *response.mutable_next_page_token(),
      List<v1::Deployment>(*context_, request.page_size(), request.page_token(),
                           [&] { return response.add_deployments(); }));
  return response;
}

absl::StatusOr<v1::DeleteDeploymentResponse>
DeploymentService::DeleteDeployment(
    const v1::DeleteDeploymentRequest& request) {
  RETURN_IF_ERROR(
      context_->Commit([&](StoreTransaction& transaction) -> absl::Status {
        ASSIGN_OR_RETURN(v1::Deployment deployment,
                         Load<v1::Deployment>(transaction, request.name()));
        RETURN_IF_ERROR(CheckEtag(deployment, request.etag()));
        if (deployment.state() == v1::Deployment::STOPPING) {
          return absl::OkStatus();
        }
        deployment.set_state(v1::Deployment::STOPPING);
        deployment.clear_endpoint();
        RETURN_IF_ERROR(SaveResource(transaction, &deployment));
        return AppendResourceEvent(*context_, transaction, deployment,
                                   "STOPPING", /*progress_only=*/false);
      }));
  return v1::DeleteDeploymentResponse();
}

}  // namespace onegrid::controller
