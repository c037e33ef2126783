#include "services/controller/worker_service.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/util/time_util.h"
#include "services/common/error_info.h"
#include "services/common/grpc_status.h"

namespace onegrid::controller {
namespace {

using google::protobuf::Message;

constexpr absl::Duration kWaitMax = absl::Seconds(30);

absl::Status StaleAttempt(const v1::Attempt& attempt) {
  return common::MakeError(
      absl::StatusCode::kAborted, "STALE_ATTEMPT",
      absl::StrCat("attempt ", attempt.epoch(), " of ", attempt.resource(),
                   " is not the current one"),
      {{"resource", attempt.resource()},
       {"epoch", absl::StrCat(attempt.epoch())}});
}

bool IsCancelling(const Message& resource) {
  return JobStateOf(resource) == v1::CANCELLING;
}

// The oldest job of the kinds asked for that may start now.
absl::StatusOr<std::string> NextJob(StoreTransaction& transaction,
                                    const v1::LeaseAttemptRequest& request,
                                    const WorkerService::FindServers& servers,
                                    EvaluationServers* found) {
  for (const int kind : request.kinds()) {
    ASSIGN_OR_RETURN(
        const std::vector<std::string> names,
        transaction.JobsInState(static_cast<v1::WorkKind>(kind), v1::QUEUED));
    for (const std::string& name : names) {
      if (kind != v1::EVALUATE) return name;
      const std::optional<EvaluationServers> ready = servers(name);
      if (!ready.has_value()) continue;
      *found = *ready;
      return name;
    }
  }
  return std::string();
}

}  // namespace

absl::StatusOr<v1::LeaseAttemptResponse> WorkerService::LeaseAttempt(
    const v1::LeaseAttemptRequest& request, const std::function<bool()>& gone) {
  if (request.kinds().empty()) {
    return InvalidField("kinds", "empty", "at least one WorkKind");
  }
  for (const int kind : request.kinds()) {
    if (!v1::WorkKind_IsValid(kind) || kind == v1::WORK_KIND_UNSPECIFIED) {
      return InvalidField("kinds", absl::StrCat(kind), "a WorkKind");
    }
  }
  if (request.worker().empty()) {
    return InvalidField("worker", "empty", "a name");
  }
  // A worker does one thing at a time: what it held before is lost, be it
  // that it was started again or that the answer to its last call was.
  RETURN_IF_ERROR(LoseWorker(request.worker(), "it asks for new work"));
  const absl::Duration wait = std::min(
      kWaitMax, absl::Milliseconds(
                    google::protobuf::util::TimeUtil::DurationToMilliseconds(
                        request.wait())));
  const absl::Time deadline = absl::Now() + wait;
  while (true) {
    const uint64_t version = context_->changes->version();
    v1::LeaseAttemptResponse response;
    ASSIGN_OR_RETURN(const bool leased, TryLease(request, &response));
    const absl::Duration left = deadline - absl::Now();
    if (leased || left <= absl::ZeroDuration() || gone() ||
        context_->changes->closed()) {
      return response;
    }
    // Wakes now and then to notice a client that has gone.
    context_->changes->WaitPast(
        version, std::min(left, absl::Duration(absl::Seconds(1))));
  }
}

absl::StatusOr<bool> WorkerService::TryLease(
    const v1::LeaseAttemptRequest& request,
    v1::LeaseAttemptResponse* response) {
  bool leased = false;
  const auto body = [&](StoreTransaction& transaction) -> absl::Status {
    EvaluationServers servers;
    ASSIGN_OR_RETURN(const std::string name,
                     NextJob(transaction, request, find_servers_, &servers));
    if (name.empty()) return absl::OkStatus();
    leased = true;
    ASSIGN_OR_RETURN(const std::unique_ptr<Message> resource,
                     LoadAny(transaction, name));
    JobUpdate update;
    update.event = JobEvent::kStart;
    update.worker = request.worker();
    ASSIGN_OR_RETURN(
        const JobChange change,
        TransitionJob(*context_, transaction, update, resource.get()));
    const absl::StatusOr<v1::WorkItem> item =
        BuildWorkItem(transaction, *resource, servers);
    if (!item.ok()) {
      // What the job needs is gone, so that no worker can do it.
      JobUpdate failure;
      failure.event = JobEvent::kFail;
      failure.error = common::ToJobError(item.status());
      leased = false;
      return TransitionJob(*context_, transaction, failure, resource.get())
          .status();
    }
    *response->mutable_work() = *item;
    response->mutable_work()->mutable_attempt()->set_resource(name);
    response->mutable_work()->mutable_attempt()->set_epoch(change.facts.epoch);
    *response->mutable_lease() =
        google::protobuf::util::TimeUtil::MillisecondsToDuration(
            absl::ToInt64Milliseconds(context_->lease));
    return absl::OkStatus();
  };
  // Most calls find nothing, and reading is cheaper than a commit.
  bool has_work = false;
  RETURN_IF_ERROR(
      context_->store->View([&](StoreTransaction& transaction) -> absl::Status {
        EvaluationServers servers;
        ASSIGN_OR_RETURN(
            const std::string name,
            NextJob(transaction, request, find_servers_, &servers));
        has_work = !name.empty();
        return absl::OkStatus();
      }));
  if (!has_work) return false;
  RETURN_IF_ERROR(context_->Commit(body));
  return leased;
}

absl::StatusOr<WorkerService::Held> WorkerService::CheckAttempt(
    StoreTransaction& transaction, const v1::Attempt& attempt) {
  ASSIGN_OR_RETURN(const std::optional<JobRow> job,
                   transaction.FindJob(attempt.resource()));
  if (!job.has_value() || job->epoch != attempt.epoch() ||
      job->lease_expiry_us == 0) {
    return StaleAttempt(attempt);
  }
  Held held;
  held.job = *job;
  ASSIGN_OR_RETURN(held.resource, LoadAny(transaction, attempt.resource()));
  return held;
}

absl::Status WorkerService::Extend(StoreTransaction& transaction, Held* held) {
  held->job.lease_expiry_us =
      absl::ToUnixMicros(context_->now() + context_->lease);
  return transaction.SaveJob(held->job);
}

absl::StatusOr<v1::HeartbeatResponse> WorkerService::Heartbeat(
    const v1::HeartbeatRequest& request) {
  v1::HeartbeatResponse response;
  RETURN_IF_ERROR(context_->store->Update(
      [&](StoreTransaction& transaction) -> absl::Status {
        ASSIGN_OR_RETURN(Held held,
                         CheckAttempt(transaction, request.attempt()));
        response.set_cancel_requested(IsCancelling(*held.resource));
        return Extend(transaction, &held);
      }));
  return response;
}

absl::StatusOr<v1::ReportProgressResponse> WorkerService::ReportProgress(
    const v1::ReportProgressRequest& request) {
  v1::ReportProgressResponse response;
  RETURN_IF_ERROR(
      context_->Commit([&](StoreTransaction& transaction) -> absl::Status {
        ASSIGN_OR_RETURN(Held held,
                         CheckAttempt(transaction, request.attempt()));
        response.set_cancel_requested(IsCancelling(*held.resource));
        v1::Progress progress = request.progress();
        *progress.mutable_update_time() = ToTimestamp(context_->now());
        SetProgress(held.resource.get(), progress);
        RETURN_IF_ERROR(SaveResource(transaction, held.resource.get()));
        RETURN_IF_ERROR(AppendResourceEvent(*context_, transaction,
                                            *held.resource, "",
                                            /*progress_only=*/true));
        return Extend(transaction, &held);
      }));
  return response;
}

absl::StatusOr<v1::CommitCheckpointResponse> WorkerService::CommitCheckpoint(
    const v1::CommitCheckpointRequest& request) {
  v1::CommitCheckpointResponse response;
  RETURN_IF_ERROR(
      context_->Commit([&](StoreTransaction& transaction) -> absl::Status {
        ASSIGN_OR_RETURN(Held held,
                         CheckAttempt(transaction, request.attempt()));
        auto* job = dynamic_cast<v1::TuningJob*>(held.resource.get());
        if (job == nullptr) {
          return InvalidField("attempt.resource", request.attempt().resource(),
                              "a tuning job");
        }
        RETURN_IF_ERROR(
            RecordArtifacts(*context_, transaction, request.checkpoint()));
        response.set_cancel_requested(IsCancelling(*job));
        *job->mutable_last_checkpoint() = request.checkpoint();
        *job->mutable_last_checkpoint()->mutable_create_time() =
            ToTimestamp(context_->now());
        RETURN_IF_ERROR(SaveResource(transaction, job));
        RETURN_IF_ERROR(AppendResourceEvent(
            *context_, transaction, *job,
            absl::StrCat("checkpoint of ", request.checkpoint().stage(),
                         " at step ", request.checkpoint().step()),
            /*progress_only=*/false));
        return Extend(transaction, &held);
      }));
  return response;
}

absl::Status WorkerService::StoreResult(StoreTransaction& transaction,
                                        const v1::WorkResult& result,
                                        Message* resource) {
  RETURN_IF_ERROR(RecordArtifacts(*context_, transaction, result));
  if (auto* base = dynamic_cast<v1::BaseModel*>(resource)) {
    if (!result.has_import()) return InvalidField("result", "other", "import");
    *base->mutable_model() = result.import().model();
    *base->mutable_report() = result.import().report();
  } else if (auto* job = dynamic_cast<v1::TuningJob*>(resource)) {
    if (!result.has_tune()) return InvalidField("result", "other", "tune");
    *job->mutable_result() = result.tune();
  } else if (auto* made = dynamic_cast<v1::Export*>(resource)) {
    if (!result.has_export_()) return InvalidField("result", "other", "export");
    *made->mutable_artifacts() = result.export_().artifacts();
    *made->mutable_equivalence() = result.export_().equivalence();
  } else if (auto* evaluation = dynamic_cast<v1::Evaluation*>(resource)) {
    if (!result.has_evaluate()) {
      return InvalidField("result", "other", "evaluate");
    }
    const v1::Evaluation& out = result.evaluate();
    if (out.has_metrics()) *evaluation->mutable_metrics() = out.metrics();
    evaluation->set_prefill_tokens_per_second(out.prefill_tokens_per_second());
    evaluation->set_decode_tokens_per_second(out.decode_tokens_per_second());
    evaluation->set_engine(out.engine());
    if (evaluation->kind() != v1::EQUIVALENCE) return absl::OkStatus();
    *evaluation->mutable_equivalence() = out.equivalence();
    // The export's report is the one that deployments look at.
    ASSIGN_OR_RETURN(v1::Export measured,
                     Load<v1::Export>(transaction, evaluation->model()));
    *measured.mutable_equivalence() = out.equivalence();
    return SaveResource(transaction, &measured);
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::FinishAttemptResponse> WorkerService::FinishAttempt(
    const v1::FinishAttemptRequest& request) {
  const v1::Attempt& attempt = request.attempt();
  RETURN_IF_ERROR(
      context_->Commit([&](StoreTransaction& transaction) -> absl::Status {
        ASSIGN_OR_RETURN(const std::optional<JobRow> job,
                         transaction.FindJob(attempt.resource()));
        if (job.has_value() && job->finished_epoch == attempt.epoch()) {
          return absl::OkStatus();
        }
        ASSIGN_OR_RETURN(Held held, CheckAttempt(transaction, attempt));
        held.job.finished_epoch = attempt.epoch();
        RETURN_IF_ERROR(transaction.SaveJob(held.job));
        JobUpdate update;
        if (request.has_result()) {
          update.event = JobEvent::kSucceed;
          if (!IsCancelling(*held.resource)) {
            RETURN_IF_ERROR(StoreResult(transaction, request.result(),
                                        held.resource.get()));
          }
        } else {
          update.event =
              request.retriable() ? JobEvent::kFailRetriable : JobEvent::kFail;
          update.error = request.error();
        }
        return TransitionJob(*context_, transaction, update,
                             held.resource.get())
            .status();
      }));
  return v1::FinishAttemptResponse();
}

absl::Status WorkerService::LoseJobs(
    const std::function<bool(const JobRow&)>& is_lost, const char* reason,
    const std::string& why) {
  std::vector<JobRow> lost;
  const auto find = [&](StoreTransaction& transaction) -> absl::Status {
    ASSIGN_OR_RETURN(std::vector<JobRow> jobs, transaction.LeasedJobs());
    lost.clear();
    std::copy_if(jobs.begin(), jobs.end(), std::back_inserter(lost), is_lost);
    return absl::OkStatus();
  };
  // Most calls find nothing, and reading is cheaper than a commit.
  RETURN_IF_ERROR(context_->store->View(find));
  if (lost.empty()) return absl::OkStatus();
  return context_->Commit([&](StoreTransaction& transaction) -> absl::Status {
    RETURN_IF_ERROR(find(transaction));
    for (const JobRow& job : lost) {
      ASSIGN_OR_RETURN(const std::unique_ptr<Message> resource,
                       LoadAny(transaction, job.name));
      JobUpdate update;
      update.event = JobEvent::kLoseWorker;
      update.error = common::ToJobError(common::MakeError(
          absl::StatusCode::kUnavailable, reason,
          absl::StrCat("worker ", job.worker, " was lost: ", why),
          {{"worker", job.worker}}));
      RETURN_IF_ERROR(
          TransitionJob(*context_, transaction, update, resource.get())
              .status());
    }
    return absl::OkStatus();
  });
}

absl::Status WorkerService::ExpireLeases() {
  const int64_t now_us = absl::ToUnixMicros(context_->now());
  return LoseJobs(
      [now_us](const JobRow& job) { return job.lease_expiry_us <= now_us; },
      "LEASE_EXPIRED", "its lease ran out without a heartbeat");
}

absl::Status WorkerService::LoseWorker(const std::string& worker,
                                       const std::string& why) {
  return LoseJobs([&](const JobRow& job) { return job.worker == worker; },
                  "WORKER_DIED", why);
}

absl::Status WorkerService::LoseWorkers(const std::string& name_prefix,
                                        const std::string& why) {
  return LoseJobs(
      [&](const JobRow& job) {
        return absl::StartsWith(job.worker, name_prefix);
      },
      "WORKER_DIED", why);
}

absl::Status WorkerService::RenewLeases() {
  return context_->store->Update(
      [&](StoreTransaction& transaction) -> absl::Status {
        ASSIGN_OR_RETURN(std::vector<JobRow> jobs, transaction.LeasedJobs());
        for (JobRow& job : jobs) {
          job.lease_expiry_us =
              absl::ToUnixMicros(context_->now() + context_->lease);
          RETURN_IF_ERROR(transaction.SaveJob(job));
        }
        return absl::OkStatus();
      });
}

}  // namespace onegrid::controller
