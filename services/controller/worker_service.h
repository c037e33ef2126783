// Leases work to workers and fences off those that lost it. Thread-safe.
#ifndef SERVICES_CONTROLLER_WORKER_SERVICE_H_
#define SERVICES_CONTROLLER_WORKER_SERVICE_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "proto/onegrid/v1/worker.pb.h"
#include "services/controller/registry.h"
#include "services/controller/work_items.h"

namespace onegrid::controller {

// Logic of the internal WorkerService; errors as in worker.proto.
class WorkerService {
 public:
  // The servers of an evaluation, once all of them serve.
  using FindServers =
      std::function<std::optional<EvaluationServers>(const std::string& name)>;

  WorkerService(const ControllerContext* context, FindServers find_servers)
      : context_(context), find_servers_(std::move(find_servers)) {}

  // Blocks up to request.wait, at most 30 s, or until `gone` says so.
  absl::StatusOr<v1::LeaseAttemptResponse> LeaseAttempt(
      const v1::LeaseAttemptRequest& request,
      const std::function<bool()>& gone);
  absl::StatusOr<v1::HeartbeatResponse> Heartbeat(
      const v1::HeartbeatRequest& request);
  absl::StatusOr<v1::ReportProgressResponse> ReportProgress(
      const v1::ReportProgressRequest& request);
  absl::StatusOr<v1::CommitCheckpointResponse> CommitCheckpoint(
      const v1::CommitCheckpointRequest& request);
  absl::StatusOr<v1::FinishAttemptResponse> FinishAttempt(
      const v1::FinishAttemptRequest& request);

  // Takes back every attempt whose lease has run out.
  absl::Status ExpireLeases();

  // Takes back the attempts of a worker that is known to have dropped them.
  absl::Status LoseWorker(const std::string& worker, const std::string& why);

  // The same for all workers whose name starts with the prefix.
  absl::Status LoseWorkers(const std::string& name_prefix,
                           const std::string& why);

  // Gives every leased attempt a whole lease from now, for workers that could
  // not heartbeat while the controller was away. Call once before serving.
  absl::Status RenewLeases();

 private:
  // An attempt's job, checked to be the current one.
  struct Held {
    std::unique_ptr<google::protobuf::Message> resource;
    JobRow job;
  };

  absl::Status LoseJobs(const std::function<bool(const JobRow&)>& is_lost,
                        const char* reason, const std::string& why);
  absl::StatusOr<bool> TryLease(const v1::LeaseAttemptRequest& request,
                                v1::LeaseAttemptResponse* response);
  absl::StatusOr<Held> CheckAttempt(StoreTransaction& transaction,
                                    const v1::Attempt& attempt);
  absl::Status Extend(StoreTransaction& transaction, Held* held);
  absl::Status StoreResult(StoreTransaction& transaction,
                           const v1::WorkResult& result,
                           google::protobuf::Message* resource);

  const ControllerContext* context_;
  FindServers find_servers_;
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_WORKER_SERVICE_H_
