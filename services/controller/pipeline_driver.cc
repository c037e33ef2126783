#include "services/controller/pipeline_driver.h"

#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/onegrid/v1/base_model.pb.h"
#include "services/common/error_info.h"
#include "services/common/grpc_status.h"
#include "services/controller/model_lookup.h"

namespace onegrid::controller {
namespace {

using google::protobuf::Message;

std::string IdOf(const std::string& name) {
  return name.substr(name.find('/') + 1);
}

std::string ResourceOf(const v1::PipelineRun& run, absl::string_view step_id) {
  for (const v1::PipelineStep& step : run.steps()) {
    if (step.id() == step_id) return step.resource();
  }
  return "";
}

v1::JobState StateOfDeployment(const v1::Deployment& deployment) {
  switch (deployment.state()) {
    case v1::Deployment::SERVING:
      return v1::SUCCEEDED;
    case v1::Deployment::FAILED_TO_START:
      return v1::FAILED;
    case v1::Deployment::STOPPING:
      return v1::CANCELLED;
    default:
      return v1::RUNNING;
  }
}

std::string Figures(const v1::LogitAgreement& agreement) {
  return absl::StrCat("mean KL ", agreement.mean_kl(), ", top-1 agreement ",
                      agreement.top1_agreement());
}

absl::Status EquivalenceFailure(const v1::EquivalenceReport& report) {
  return common::MakeError(
      absl::StatusCode::kFailedPrecondition, "EQUIVALENCE_FAILED",
      absl::StrCat(
          "the served model is not the trained one: ",
          report.tensors_bit_exact(), " of ", report.tensors(),
          " tensors bit-exact; in float: ", Figures(report.float_engine()),
          "; as served: ", Figures(report.served_engine()),
          "; by the served arithmetic: ",
          report.has_served_arithmetic() ? Figures(report.served_arithmetic())
                                         : "not compared"),
      {{"tensors", absl::StrCat(report.tensors())},
       {"tensors_bit_exact", absl::StrCat(report.tensors_bit_exact())},
       {"kl_float", absl::StrCat(report.float_engine().mean_kl())},
       {"kl_served", absl::StrCat(report.served_engine().mean_kl())},
       {"kl_served_arithmetic",
        absl::StrCat(report.served_arithmetic().mean_kl())}});
}

}  // namespace

absl::Status PipelineDriver::Advance() {
  std::vector<std::string> names;
  RETURN_IF_ERROR(
      context_->store->View([&](StoreTransaction& transaction) -> absl::Status {
        for (const v1::JobState state :
             {v1::QUEUED, v1::RUNNING, v1::CANCELLING}) {
          ASSIGN_OR_RETURN(
              const std::vector<std::string> some,
              transaction.JobsInState(v1::WORK_KIND_UNSPECIFIED, state));
          names.insert(names.end(), some.begin(), some.end());
        }
        return absl::OkStatus();
      }));
  for (const std::string& name : names) {
    bool acted = true;
    while (acted) {
      ASSIGN_OR_RETURN(acted, AdvanceRun(name));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> PipelineDriver::AdvanceRun(const std::string& name) {
  v1::PipelineRun run;
  Child child;
  RETURN_IF_ERROR(
      context_->store->View([&](StoreTransaction& transaction) -> absl::Status {
        ASSIGN_OR_RETURN(run, Load<v1::PipelineRun>(transaction, name));
        ASSIGN_OR_RETURN(child, LookAtChild(transaction, run));
        return absl::OkStatus();
      }));
  return Act(run, PlanPipeline(run, child.view), child);
}

absl::StatusOr<PipelineDriver::Child> PipelineDriver::LookAtChild(
    StoreTransaction& transaction, const v1::PipelineRun& run) {
  Child child;
  const int step = CurrentStep(run);
  if (step == run.steps_size() || run.steps(step).resource().empty()) {
    return child;
  }
  const std::string& name = run.steps(step).resource();
  ASSIGN_OR_RETURN(const std::optional<ResourceRow> row,
                   transaction.Find(name));
  // One of the same name that is not ours makes the creation fail.
  if (!row.has_value() || row->parent != run.name()) return child;
  ASSIGN_OR_RETURN(const std::unique_ptr<Message> resource,
                   LoadAny(transaction, name));
  child.view.exists = true;
  child.view.state = JobStateOf(*resource);
  child.error = ErrorOf(*resource);
  if (const auto* deployment =
          dynamic_cast<const v1::Deployment*>(resource.get())) {
    child.view.state = StateOfDeployment(*deployment);
  }
  const auto* evaluation = dynamic_cast<const v1::Evaluation*>(resource.get());
  if (evaluation != nullptr && evaluation->kind() == v1::EQUIVALENCE &&
      evaluation->state() == v1::SUCCEEDED &&
      evaluation->equivalence().verdict() != v1::EquivalenceReport::PASSED) {
    child.view.state = v1::FAILED;
    child.error =
        common::ToJobError(EquivalenceFailure(evaluation->equivalence()));
  }
  if (child.view.state == v1::CANCELLED) {
    child.error = common::ToJobError(common::MakeError(
        absl::StatusCode::kAborted, "STEP_CANCELLED",
        absl::StrCat(name, " was cancelled"), {{"resource", name}}));
  }
  return child;
}

absl::StatusOr<bool> PipelineDriver::Act(const v1::PipelineRun& run,
                                         const PipelinePlan& plan,
                                         const Child& child) {
  absl::Status status;
  switch (plan.action) {
    case PipelineAction::kWait:
      return false;
    case PipelineAction::kStartRun:
      status = MoveRun(run.name(), JobEvent::kStart, {});
      break;
    case PipelineAction::kBeginStep:
      status = MoveStep(run.name(), plan.step, v1::RUNNING);
      break;
    case PipelineAction::kCheckInputs:
      return CheckInputs(run, plan.step);
    case PipelineAction::kCreateChild:
      status = CreateChild(run, plan.step);
      break;
    case PipelineAction::kCancelChild:
      status = CancelChild(run, plan.step);
      break;
    case PipelineAction::kEndStep:
      status = MoveStep(run.name(), plan.step, v1::SUCCEEDED);
      break;
    case PipelineAction::kFailRun:
      RETURN_IF_ERROR(MoveStep(run.name(), plan.step, child.view.state));
      status = MoveRun(run.name(), JobEvent::kFail, child.error);
      break;
    case PipelineAction::kEndCancelled:
      if (plan.step < run.steps_size()) {
        RETURN_IF_ERROR(MoveStep(run.name(), plan.step, v1::CANCELLED));
      }
      status = MoveRun(run.name(), JobEvent::kFail, {});
      break;
    case PipelineAction::kSucceedRun:
      status = MoveRun(run.name(), JobEvent::kSucceed, {});
      break;
  }
  if (!status.ok()) return status;
  return true;
}

absl::StatusOr<bool> PipelineDriver::CheckInputs(const v1::PipelineRun& run,
                                                 int step) {
  absl::Status problem;
  bool importing = false;
  RETURN_IF_ERROR(
      context_->store->View([&](StoreTransaction& transaction) -> absl::Status {
        const absl::StatusOr<v1::BaseModel> base =
            Load<v1::BaseModel>(transaction, run.tuning_job().base_model());
        problem = base.status();
        if (!problem.ok()) return absl::OkStatus();
        importing = !IsFinal(base->state());
        problem = CheckSucceeded(*base);
        if (!problem.ok()) return absl::OkStatus();
        problem = RecordArtifacts(*context_, transaction, run);
        return absl::OkStatus();
      }));
  // An import that was started just before the run is waited for.
  if (importing) return false;
  if (problem.ok()) {
    RETURN_IF_ERROR(MoveStep(run.name(), step, v1::SUCCEEDED));
    return true;
  }
  RETURN_IF_ERROR(MoveStep(run.name(), step, v1::FAILED));
  RETURN_IF_ERROR(
      MoveRun(run.name(), JobEvent::kFail, common::ToJobError(problem)));
  return true;
}

absl::Status PipelineDriver::CreateChild(const v1::PipelineRun& run, int step) {
  const std::string& step_id = run.steps(step).id();
  const std::string id = IdOf(run.steps(step).resource());
  absl::Status status;
  if (step_id == "tune") {
    v1::CreateTuningJobRequest request;
    request.set_tuning_job_id(id);
    *request.mutable_tuning_job() = run.tuning_job();
    status = tuning_->CreateTuningJob(request, run.name()).status();
  } else if (step_id == "export") {
    v1::CreateExportRequest request;
    request.set_export_id(id);
    request.mutable_export_()->set_tuning_job(ResourceOf(run, "tune"));
    request.mutable_export_()->set_max_shard_bytes(run.max_shard_bytes());
    status = exports_->CreateExport(request, run.name()).status();
  } else if (step_id == "deploy") {
    v1::CreateDeploymentRequest request;
    request.set_deployment_id(id);
    request.mutable_deployment()->set_model(ResourceOf(run, "export"));
    status = deployments_->CreateDeployment(request, run.name()).status();
  } else {
    v1::CreateEvaluationRequest request;
    request.set_evaluation_id(id);
    v1::Evaluation* evaluation = request.mutable_evaluation();
    evaluation->set_kind(step_id == "verify" ? v1::EQUIVALENCE : v1::TASK);
    evaluation->set_model(step_id == "evaluate_base"
                              ? run.tuning_job().base_model()
                              : ResourceOf(run, "export"));
    if (evaluation->kind() == v1::TASK) {
      evaluation->set_dataset(run.tuning_job().dataset());
      evaluation->set_split("test");
      evaluation->set_max_examples(run.max_eval_examples());
    }
    status = evaluations_->CreateEvaluation(request, run.name()).status();
  }
  // The store's own troubles are not the run's: the step is tried again.
  if (status.ok() || absl::IsInternal(status) ||
      absl::IsResourceExhausted(status)) {
    return status;
  }
  RETURN_IF_ERROR(MoveStep(run.name(), step, v1::FAILED));
  return MoveRun(run.name(), JobEvent::kFail, common::ToJobError(status));
}

absl::Status PipelineDriver::CancelChild(const v1::PipelineRun& run, int step) {
  const std::string& name = run.steps(step).resource();
  if (run.steps(step).id() == "deploy") {
    v1::DeleteDeploymentRequest request;
    request.set_name(name);
    return deployments_->DeleteDeployment(request).status();
  }
  return context_->Commit([&](StoreTransaction& transaction) -> absl::Status {
    ASSIGN_OR_RETURN(const std::unique_ptr<Message> resource,
                     LoadAny(transaction, name));
    // It may have ended since it was looked at.
    if (IsFinal(JobStateOf(*resource))) return absl::OkStatus();
    JobUpdate update;
    update.event = JobEvent::kCancel;
    return TransitionJob(*context_, transaction, update, resource.get())
        .status();
  });
}

absl::Status PipelineDriver::MoveStep(const std::string& name, int index,
                                      v1::JobState state) {
  return context_->Commit([&](StoreTransaction& transaction) -> absl::Status {
    ASSIGN_OR_RETURN(v1::PipelineRun run,
                     Load<v1::PipelineRun>(transaction, name));
    v1::PipelineStep* step = run.mutable_steps(index);
    step->set_state(state);
    if (state == v1::RUNNING) {
      *step->mutable_start_time() = ToTimestamp(context_->now());
    } else {
      *step->mutable_end_time() = ToTimestamp(context_->now());
    }
    RETURN_IF_ERROR(SaveResource(transaction, &run));
    const char* verb = state == v1::RUNNING     ? "started"
                       : state == v1::SUCCEEDED ? "done"
                       : state == v1::CANCELLED ? "cancelled"
                                                : "failed";
    return AppendResourceEvent(*context_, transaction, run,
                               absl::StrCat("step ", step->id(), " ", verb),
                               /*progress_only=*/false);
  });
}

absl::Status PipelineDriver::MoveRun(const std::string& name, JobEvent event,
                                     const v1::JobError& error) {
  return context_->Commit([&](StoreTransaction& transaction) -> absl::Status {
    ASSIGN_OR_RETURN(v1::PipelineRun run,
                     Load<v1::PipelineRun>(transaction, name));
    JobUpdate update;
    update.event = event;
    update.error = error;
    if (event == JobEvent::kStart) {
      AddSteps(&run);
      update.message = "run started";
    }
    return TransitionJob(*context_, transaction, update, &run).status();
  });
}

}  // namespace onegrid::controller
