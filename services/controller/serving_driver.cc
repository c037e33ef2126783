#include "services/controller/serving_driver.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/onegrid/v1/deployment.pb.h"
#include "proto/onegrid/v1/evaluation.pb.h"
#include "services/common/error_info.h"
#include "services/common/grpc_status.h"
#include "services/common/log.h"
#include "services/controller/model_lookup.h"

namespace onegrid::controller {
namespace {

using ServerState = ServerStatus::State;

std::string ServedKey(const std::string& evaluation) {
  return evaluation + "#served";
}
std::string FloatKey(const std::string& evaluation) {
  return evaluation + "#float";
}

absl::Status StartFailure(const ServerStatus& server) {
  return common::MakeError(
      absl::StatusCode::kUnavailable, "INFERENCE_START_FAILED",
      absl::StrCat("the inference server does not start: ", server.problem),
      {{"problem", server.problem}});
}

// What a deployment should look like, given its server. False: no change.
bool UpdateDeployment(const ServerStatus& server, v1::Deployment* deployment) {
  v1::Deployment::State state = v1::Deployment::STARTING;
  if (server.state == ServerState::kServing) state = v1::Deployment::SERVING;
  if (server.state == ServerState::kFailed) {
    state = v1::Deployment::FAILED_TO_START;
  }
  const std::string endpoint =
      state == v1::Deployment::SERVING ? server.endpoint : "";
  if (state == deployment->state() && endpoint == deployment->endpoint() &&
      server.restarts == deployment->restarts()) {
    return false;
  }
  deployment->set_state(state);
  deployment->set_endpoint(endpoint);
  deployment->set_restarts(server.restarts);
  deployment->clear_error();
  if (state == v1::Deployment::FAILED_TO_START) {
    *deployment->mutable_error() = common::ToJobError(StartFailure(server));
  }
  return true;
}

}  // namespace

absl::Status ServingDriver::FindModel(StoreTransaction& transaction,
                                      const std::string& model,
                                      ServerSpec* spec) const {
  ASSIGN_OR_RETURN(const std::vector<v1::ArtifactRef> files,
                   FindGguf(transaction, model));
  spec->artifact_sha256 = ModelSha256(files);
  ASSIGN_OR_RETURN(spec->model_path,
                   context_->blobs->ModelPath(spec->artifact_sha256, files));
  return absl::OkStatus();
}

absl::Status ServingDriver::Reconcile() {
  std::set<std::string> wanted;
  RETURN_IF_ERROR(ReconcileDeployments(&wanted));
  RETURN_IF_ERROR(ReconcileEvaluations(&wanted));
  for (const std::string& key : runner_->Keys()) {
    if (wanted.count(key) == 0) runner_->Stop(key);
  }
  return absl::OkStatus();
}

absl::Status ServingDriver::ReconcileDeployments(
    std::set<std::string>* wanted) {
  std::vector<v1::Deployment> deployments;
  RETURN_IF_ERROR(
      context_->store->View([&](StoreTransaction& transaction) -> absl::Status {
        ASSIGN_OR_RETURN(const std::vector<ResourceRow> rows,
                         transaction.List("deployments", 0, -1));
        for (const ResourceRow& row : rows) {
          if (!deployments.emplace_back().ParseFromString(row.data)) {
            return absl::DataLossError(absl::StrCat(row.name, " is corrupt"));
          }
        }
        return absl::OkStatus();
      }));
  for (const v1::Deployment& deployment : deployments) {
    RETURN_IF_ERROR(ReconcileDeployment(deployment, wanted));
  }
  return absl::OkStatus();
}

absl::Status ServingDriver::ReconcileDeployment(
    const v1::Deployment& deployment, std::set<std::string>* wanted) {
  const std::string& key = deployment.name();
  if (deployment.state() == v1::Deployment::STOPPING) {
    if (runner_->StatusOf(key).state != ServerState::kStopped) {
      return absl::OkStatus();
    }
    return context_->Commit(
        [&](StoreTransaction& transaction) { return transaction.Erase(key); });
  }
  if (deployment.state() == v1::Deployment::FAILED_TO_START) {
    return absl::OkStatus();
  }
  ServerSpec spec;
  spec.activations = deployment.activations();
  spec.kv_cache = deployment.kv_cache();
  RETURN_IF_ERROR(
      context_->store->View([&](StoreTransaction& transaction) -> absl::Status {
        return FindModel(transaction, deployment.model(), &spec);
      }));
  runner_->Start(key, spec);
  wanted->insert(key);
  v1::Deployment changed = deployment;
  if (!UpdateDeployment(runner_->StatusOf(key), &changed)) {
    return absl::OkStatus();
  }
  return context_->Commit([&](StoreTransaction& transaction) -> absl::Status {
    ASSIGN_OR_RETURN(const v1::Deployment current,
                     Load<v1::Deployment>(transaction, key));
    // Deleted since it was read.
    if (current.state() == v1::Deployment::STOPPING) return absl::OkStatus();
    RETURN_IF_ERROR(SaveResource(transaction, &changed));
    const std::string state = v1::Deployment::State_Name(changed.state());
    common::LogInfo("deployment", {{"resource", key},
                                   {"state", state},
                                   {"endpoint", changed.endpoint()}});
    return AppendResourceEvent(
        *context_, transaction, changed,
        absl::StrCat(state, changed.endpoint().empty() ? "" : " at ",
                     changed.endpoint(), changed.error().message()),
        /*progress_only=*/false);
  });
}

absl::Status ServingDriver::ReconcileEvaluations(
    std::set<std::string>* wanted) {
  std::vector<std::string> held;
  std::vector<std::string> queued;
  RETURN_IF_ERROR(
      context_->store->View([&](StoreTransaction& transaction) -> absl::Status {
        for (const v1::JobState state : {v1::RUNNING, v1::CANCELLING}) {
          ASSIGN_OR_RETURN(const std::vector<std::string> names,
                           transaction.JobsInState(v1::EVALUATE, state));
          held.insert(held.end(), names.begin(), names.end());
        }
        ASSIGN_OR_RETURN(queued,
                         transaction.JobsInState(v1::EVALUATE, v1::QUEUED));
        return absl::OkStatus();
      }));
  // One evaluation has servers at a time: they share the machine's memory
  // and CPUs.
  if (held.empty() && !queued.empty()) held.push_back(queued.front());
  {
    absl::MutexLock lock(&mutex_);
    for (auto it = ready_.begin(); it != ready_.end();) {
      const bool keep =
          std::find(held.begin(), held.end(), it->first) != held.end();
      it = keep ? std::next(it) : ready_.erase(it);
    }
  }
  for (const std::string& name : held) {
    const absl::Status status = StartEvaluationServers(name, wanted);
    if (!status.ok()) RETURN_IF_ERROR(FailEvaluation(name, status));
  }
  return absl::OkStatus();
}

absl::Status ServingDriver::StartEvaluationServers(
    const std::string& name, std::set<std::string>* wanted) {
  ServerSpec spec;
  bool equivalence = false;
  RETURN_IF_ERROR(
      context_->store->View([&](StoreTransaction& transaction) -> absl::Status {
        ASSIGN_OR_RETURN(const v1::Evaluation evaluation,
                         Load<v1::Evaluation>(transaction, name));
        equivalence = evaluation.kind() == v1::EQUIVALENCE;
        return FindModel(transaction, evaluation.model(), &spec);
      }));
  std::map<std::string, ServerSpec> specs = {{ServedKey(name), spec}};
  if (equivalence) {
    spec.activations = "f32";
    spec.kv_cache = "f32";
    specs[FloatKey(name)] = spec;
  }
  bool all_serve = true;
  for (const auto& [key, server_spec] : specs) {
    wanted->insert(key);
    runner_->Start(key, server_spec);
    const ServerStatus server = runner_->StatusOf(key);
    if (server.state == ServerState::kFailed) {
      wanted->erase(ServedKey(name));
      wanted->erase(FloatKey(name));
      return StartFailure(server);
    }
    all_serve = all_serve && server.state == ServerState::kServing;
  }
  absl::MutexLock lock(&mutex_);
  if (!all_serve) {
    ready_.erase(name);
    return absl::OkStatus();
  }
  EvaluationServers servers;
  servers.served_endpoint = runner_->StatusOf(ServedKey(name)).endpoint;
  if (equivalence) {
    servers.float_endpoint = runner_->StatusOf(FloatKey(name)).endpoint;
  }
  // A server that was started again is at another address.
  if (ready_.insert_or_assign(name, servers).second) {
    context_->changes->Notify();
  }
  return absl::OkStatus();
}

absl::Status ServingDriver::FailEvaluation(const std::string& name,
                                           const absl::Status& why) {
  return context_->Commit([&](StoreTransaction& transaction) -> absl::Status {
    ASSIGN_OR_RETURN(v1::Evaluation evaluation,
                     Load<v1::Evaluation>(transaction, name));
    JobUpdate update;
    if (evaluation.state() == v1::QUEUED) {
      // The controller itself makes the attempt that fails.
      update.event = JobEvent::kStart;
      update.worker = "controller";
      RETURN_IF_ERROR(
          TransitionJob(*context_, transaction, update, &evaluation).status());
    }
    if (IsFinal(evaluation.state())) return absl::OkStatus();
    update.event = JobEvent::kFail;
    update.error = common::ToJobError(why);
    return TransitionJob(*context_, transaction, update, &evaluation).status();
  });
}

std::optional<EvaluationServers> ServingDriver::ServersOf(
    const std::string& evaluation) {
  absl::MutexLock lock(&mutex_);
  const auto found = ready_.find(evaluation);
  if (found == ready_.end()) return std::nullopt;
  return found->second;
}

}  // namespace onegrid::controller
