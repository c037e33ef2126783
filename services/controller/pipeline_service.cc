#include "services/controller/pipeline_service.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/onegrid/v1/base_model.pb.h"
#include "proto/onegrid/v1/dataset.pb.h"
#include "services/common/error_info.h"
#include "services/controller/dataset_split.h"
#include "services/controller/pipeline_plan.h"
#include "services/controller/tuning_spec.h"

namespace onegrid::controller {
namespace {

constexpr int kEventsPerRead = 100;

absl::Status CheckThreshold(const char* field, double value, double most) {
  if (value >= 0 && value <= most) return absl::OkStatus();
  return InvalidField(absl::StrCat("thresholds.", field), absl::StrCat(value),
                      absl::StrCat("0..", most));
}

// The user's fields of a run, checked by themselves.
absl::StatusOr<v1::PipelineRun> CompleteRun(const v1::PipelineRun& in) {
  v1::PipelineRun run;
  ASSIGN_OR_RETURN(*run.mutable_tuning_job(),
                   CompleteTuningJob(in.tuning_job()));
  if (run.tuning_job().mode() == v1::QLORA) {
    return InvalidField("tuning_job.mode",
                        v1::TuningMode_Name(run.tuning_job().mode()),
                        "any other: a run ends in a model on its grid");
  }
  if (in.has_probe_text()) *run.mutable_probe_text() = in.probe_text();
  if (in.probe_tokens() < 0 || in.probe_tokens() > 100'000) {
    return InvalidField("probe_tokens", absl::StrCat(in.probe_tokens()),
                        "0..100000");
  }
  run.set_probe_tokens(in.probe_tokens());
  run.set_evaluate_base(in.evaluate_base());
  if (in.max_eval_examples() < 0) {
    return InvalidField("max_eval_examples",
                        absl::StrCat(in.max_eval_examples()), "0 or more");
  }
  run.set_max_eval_examples(in.max_eval_examples());
  if (in.max_shard_bytes() < 0) {
    return InvalidField("max_shard_bytes", absl::StrCat(in.max_shard_bytes()),
                        "0 or more");
  }
  run.set_max_shard_bytes(in.max_shard_bytes());
  const v1::EquivalenceThresholds& bounds = in.thresholds();
  RETURN_IF_ERROR(CheckThreshold("kl_float", bounds.kl_float(), 100));
  RETURN_IF_ERROR(CheckThreshold("top1_float", bounds.top1_float(), 1));
  RETURN_IF_ERROR(CheckThreshold("kl_served", bounds.kl_served(), 100));
  RETURN_IF_ERROR(CheckThreshold("top1_served", bounds.top1_served(), 1));
  RETURN_IF_ERROR(CheckThreshold("kl_served_arithmetic",
                                 bounds.kl_served_arithmetic(), 100));
  if (in.has_thresholds()) *run.mutable_thresholds() = bounds;
  run.set_deployment_id(in.deployment_id());
  return run;
}

// True if no more events of the resource will come.
bool HasEnded(const google::protobuf::Message& resource) {
  if (CollectionOf(resource) == "datasets") return true;
  if (CollectionOf(resource) == "deployments") return false;
  return IsFinal(JobStateOf(resource));
}

}  // namespace

absl::StatusOr<v1::PipelineRun> PipelineService::CreatePipelineRun(
    const v1::CreatePipelineRunRequest& request) {
  ASSIGN_OR_RETURN(const v1::PipelineRun run,
                   CompleteRun(request.pipeline_run()));
  if (!run.deployment_id().empty()) RETURN_IF_ERROR(runner_->CheckCanDeploy());
  CreateCall call;
  call.id = request.pipeline_run_id();
  call.request_id = request.request_id();
  call.request = &request;
  call.validate_only = request.validate_only();
  call.is_job = true;
  call.max_attempts = 1;
  return Create<v1::PipelineRun>(
      *context_, call,
      [&](StoreTransaction& transaction) -> absl::StatusOr<v1::PipelineRun> {
        RETURN_IF_ERROR(
            Load<v1::BaseModel>(transaction, run.tuning_job().base_model())
                .status());
        ASSIGN_OR_RETURN(
            const v1::Dataset dataset,
            Load<v1::Dataset>(transaction, run.tuning_job().dataset()));
        RETURN_IF_ERROR(CheckScorable(dataset, "test"));
        if (run.deployment_id().empty()) return run;
        const std::string deployment =
            absl::StrCat("deployments/", run.deployment_id());
        ASSIGN_OR_RETURN(const std::optional<ResourceRow> taken,
                         transaction.Find(deployment));
        if (!taken.has_value()) return run;
        return common::MakeError(
            absl::StatusCode::kAlreadyExists, "RESOURCE_EXISTS",
            absl::StrCat(deployment, " exists"), {{"name", deployment}});
      });
}

absl::StatusOr<v1::PipelineRun> PipelineService::GetPipelineRun(
    const v1::GetPipelineRunRequest& request) {
  return Get<v1::PipelineRun>(*context_, request.name());
}

absl::StatusOr<v1::ListPipelineRunsResponse> PipelineService::ListPipelineRuns(
    const v1::ListPipelineRunsRequest& request) {
  v1::ListPipelineRunsResponse response;
  ASSIGN_OR_RETURN(*response.mutable_next_page_token(),
                   List<v1::PipelineRun>(
                       *context_, request.page_size(), request.page_token(),
                       [&] { return response.add_pipeline_runs(); }));
  return response;
}

absl::StatusOr<v1::PipelineRun> PipelineService::CancelPipelineRun(
    const v1::CancelPipelineRunRequest& request) {
  v1::PipelineRun run;
  RETURN_IF_ERROR(
      context_->Commit([&](StoreTransaction& transaction) -> absl::Status {
        ASSIGN_OR_RETURN(run,
                         Load<v1::PipelineRun>(transaction, request.name()));
        JobUpdate update;
        update.event = JobEvent::kCancel;
        return TransitionJob(*context_, transaction, update, &run).status();
      }));
  return run;
}

absl::Status PipelineService::WatchEvents(
    const v1::WatchEventsRequest& request,
    absl::FunctionRef<bool(const v1::Event&)> send,
    const std::function<bool()>& gone) {
  if (request.after_sequence() < 0) {
    return InvalidField("after_sequence",
                        absl::StrCat(request.after_sequence()), "0 or more");
  }
  int64_t sequence = request.after_sequence();
  bool first = true;
  while (!gone() && !context_->changes->closed()) {
    const uint64_t version = context_->changes->version();
    bool ended = false;
    std::vector<v1::Event> events;
    RETURN_IF_ERROR(context_->store->View(
        [&](StoreTransaction& transaction) -> absl::Status {
          if (!request.name().empty()) {
            const absl::StatusOr<std::unique_ptr<google::protobuf::Message>>
                resource = LoadAny(transaction, request.name());
            // One that is deleted while it is watched has ended.
            if (!resource.ok() && first) return resource.status();
            ended = !resource.ok() || HasEnded(**resource);
          }
          ASSIGN_OR_RETURN(events,
                           transaction.EventsAfter(sequence, request.name(),
                                                   kEventsPerRead));
          return absl::OkStatus();
        }));
    first = false;
    for (const v1::Event& event : events) {
      if (!send(event)) return absl::OkStatus();
      sequence = event.sequence();
    }
    if (events.size() == kEventsPerRead) continue;
    if (ended) return absl::OkStatus();
    context_->changes->WaitPast(version, absl::Seconds(1));
  }
  if (!gone()) {
    return common::MakeError(absl::StatusCode::kUnavailable, "SERVER_DRAINING",
                             "the controller stops");
  }
  return absl::OkStatus();
}

}  // namespace onegrid::controller
