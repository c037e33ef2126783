#include "services/controller/tuning_service.h"

#include "proto/onegrid/v1/base_model.pb.h"
#include "proto/onegrid/v1/dataset.pb.h"
#include "services/common/error_info.h"
#include "services/controller/model_lookup.h"
#include "services/controller/tuning_spec.h"

namespace onegrid::controller {

absl::StatusOr<v1::TuningJob> TuningService::CreateTuningJob(
    const v1::CreateTuningJobRequest& request, const std::string& parent) {
  ASSIGN_OR_RETURN(const v1::TuningJob job,
                   CompleteTuningJob(request.tuning_job()));
  CreateCall call;
  call.id = request.tuning_job_id();
  call.request_id = request.request_id();
  call.request = &request;
  call.parent = parent;
  call.validate_only = request.validate_only();
  call.is_job = true;
  call.kind = v1::TUNE;
  call.max_attempts = job.max_attempts();
  return Create<v1::TuningJob>(
      *context_, call,
      [&](StoreTransaction& transaction) -> absl::StatusOr<v1::TuningJob> {
        ASSIGN_OR_RETURN(const v1::BaseModel base,
                         Load<v1::BaseModel>(transaction, job.base_model()));
        RETURN_IF_ERROR(CheckSucceeded(base));
        RETURN_IF_ERROR(Load<v1::Dataset>(transaction, job.dataset()).status());
        if (!job.distillation().teacher().empty()) {
          ASSIGN_OR_RETURN(
              const v1::BaseModel teacher,
              Load<v1::BaseModel>(transaction, job.distillation().teacher()));
          RETURN_IF_ERROR(CheckSucceeded(teacher));
        }
        return job;
      });
}

absl::StatusOr<v1::TuningJob> TuningService::GetTuningJob(
    const v1::GetTuningJobRequest& request) {
  return Get<v1::TuningJob>(*context_, request.name());
}

absl::StatusOr<v1::ListTuningJobsResponse> TuningService::ListTuningJobs(
    const v1::ListTuningJobsRequest& request) {
  v1::ListTuningJobsResponse response;
  ASSIGN_OR_RETURN(
      *response.mutable_next_page_token(),
      List<v1::TuningJob>(*context_, request.page_size(), request.page_token(),
                          [&] { return response.add_tuning_jobs(); }));
  return response;
}

absl::StatusOr<v1::TuningJob> TuningService::CancelTuningJob(
    const v1::CancelTuningJobRequest& request) {
  v1::TuningJob job;
  RETURN_IF_ERROR(
      context_->Commit([&](StoreTransaction& transaction) -> absl::Status {
        ASSIGN_OR_RETURN(job, Load<v1::TuningJob>(transaction, request.name()));
        JobUpdate update;
        update.event = JobEvent::kCancel;
        return TransitionJob(*context_, transaction, update, &job).status();
      }));
  return job;
}

}  // namespace onegrid::controller
