#include "services/common/worker.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "grpcpp/grpcpp.h"
#include "proto/onegrid/v1/worker.grpc.pb.h"
#include "services/common/artifact_client.h"
#include "services/common/blob_cache.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/grpc_status.h"
#include "services/common/log.h"
#include "services/common/stop_signal.h"

namespace onegrid::common {
namespace {

// How long the controller may be away before a call gives up.
constexpr absl::Duration kRetryFor = absl::Minutes(10);
constexpr absl::Duration kCallTimeout = absl::Seconds(20);
constexpr absl::Duration kLeaseWait = absl::Seconds(5);
constexpr absl::Duration kProgressPeriod = absl::Milliseconds(500);

using Stub = v1::WorkerService::Stub;

google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration out;
  out.set_seconds(absl::ToInt64Seconds(duration));
  return out;
}

bool IsTransient(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

void SetDeadline(grpc::ClientContext* context, absl::Duration timeout) {
  context->set_deadline(absl::ToChronoTime(absl::Now() + timeout));
}

// One attempt. Its thread reports progress and heartbeats.
class GrpcWorkContext : public WorkContext {
 public:
  GrpcWorkContext(Stub* stub, ArtifactClient* artifacts, BlobCache* cache,
                  v1::WorkItem item, absl::Duration lease, std::string scratch)
      : stub_(stub),
        artifacts_(artifacts),
        cache_(cache),
        item_(std::move(item)),
        lease_(lease),
        scratch_dir_(std::move(scratch)),
        reporter_([this] { ReportLoop(); }) {}

  ~GrpcWorkContext() override {
    done_.Notify();
    reporter_.join();
  }

  const v1::WorkItem& item() const override { return item_; }
  bool cancelled() const override {
    return cancelled_.load() || stale_.load() || StopRequested();
  }
  bool stale() const { return stale_.load(); }
  bool user_cancelled() const { return cancelled_.load(); }
  const std::string& scratch_dir() const override { return scratch_dir_; }

  absl::StatusOr<std::string> Fetch(const v1::ArtifactRef& ref) override {
    RETURN_IF_ERROR(CheckLive());
    return cache_->Fetch(ref);
  }

  absl::StatusOr<v1::ArtifactRef> Publish(
      const std::string& path, const std::string& file_name,
      const std::string& media_type) override {
    RETURN_IF_ERROR(CheckLive());
    return artifacts_->Upload(path, file_name, media_type);
  }

  void ReportProgress(const v1::Progress& progress) override {
    absl::MutexLock lock(&mutex_);
    progress_ = progress;
  }

  absl::Status CommitCheckpoint(const v1::Checkpoint& checkpoint) override {
    v1::CommitCheckpointRequest request;
    *request.mutable_attempt() = item_.attempt();
    *request.mutable_checkpoint() = checkpoint;
    v1::CommitCheckpointResponse response;
    const absl::Status status = CallUntilAnswered([&](grpc::ClientContext* c) {
      return stub_->CommitCheckpoint(c, request, &response);
    });
    Note(status, response.cancel_requested());
    return status;
  }

  // Ends the attempt, after the last progress. Retries until the controller
  // answers or a stop.
  absl::Status Finish(const v1::FinishAttemptRequest& request) {
    SendNewProgress();
    v1::FinishAttemptResponse response;
    return CallUntilAnswered([&](grpc::ClientContext* context) {
      return stub_->FinishAttempt(context, request, &response);
    });
  }

 private:
  absl::Status CheckLive() const {
    if (!cancelled()) return absl::OkStatus();
    return MakeError(absl::StatusCode::kAborted, "ATTEMPT_CANCELLED",
                     "the attempt was cancelled");
  }

  template <typename Call>
  absl::Status CallUntilAnswered(Call call) {
    const absl::Time give_up = absl::Now() + kRetryFor;
    absl::Duration pause = absl::Milliseconds(100);
    while (true) {
      grpc::ClientContext context;
      SetDeadline(&context, kCallTimeout);
      const absl::Status status = FromGrpc(call(&context));
      if (!IsTransient(status) || absl::Now() > give_up) return status;
      if (WaitForStop(pause)) return status;
      pause = std::min(2 * pause, absl::Duration(absl::Seconds(2)));
    }
  }

  void Note(const absl::Status& status, bool cancel_requested) {
    if (cancel_requested) cancelled_.store(true);
    if (ErrorReason(status) == "STALE_ATTEMPT" && !stale_.exchange(true)) {
      LogWarning("attempt_stale", {{"resource", item_.attempt().resource()},
                                   {"epoch", item_.attempt().epoch()}});
    }
  }

  void ReportLoop() {
    const absl::Duration period = lease_ / 3;
    absl::Time next_heartbeat = absl::Now() + period;
    while (!done_.WaitForNotificationWithTimeout(kProgressPeriod)) {
      if (stale_.load()) continue;
      if (SendNewProgress()) {
        next_heartbeat = absl::Now() + period;
      } else if (absl::Now() >= next_heartbeat) {
        SendHeartbeat();
        next_heartbeat = absl::Now() + period;
      }
    }
  }

  // False: there is none since the last one.
  bool SendNewProgress() {
    std::optional<v1::Progress> progress;
    {
      absl::MutexLock lock(&mutex_);
      progress.swap(progress_);
    }
    if (progress.has_value()) SendProgress(*progress);
    return progress.has_value();
  }

  void SendProgress(const v1::Progress& progress) {
    v1::ReportProgressRequest request;
    *request.mutable_attempt() = item_.attempt();
    *request.mutable_progress() = progress;
    v1::ReportProgressResponse response;
    grpc::ClientContext context;
    SetDeadline(&context, lease_ / 3);
    const grpc::Status status =
        stub_->ReportProgress(&context, request, &response);
    Note(FromGrpc(status), response.cancel_requested());
  }

  void SendHeartbeat() {
    v1::HeartbeatRequest request;
    *request.mutable_attempt() = item_.attempt();
    v1::HeartbeatResponse response;
    grpc::ClientContext context;
    SetDeadline(&context, lease_ / 3);
    const grpc::Status status = stub_->Heartbeat(&context, request, &response);
    Note(FromGrpc(status), response.cancel_requested());
  }

  Stub* const stub_;
  ArtifactClient* const artifacts_;
  BlobCache* const cache_;
  const v1::WorkItem item_;
  const absl::Duration lease_;
  const std::string scratch_dir_;
  std::atomic<bool> cancelled_ = false;
  std::atomic<bool> stale_ = false;
  absl::Notification done_;
  absl::Mutex mutex_;
  std::optional<v1::Progress> progress_ ABSL_GUARDED_BY(mutex_);
  std::thread reporter_;
};

bool IsRetriable(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsAborted(status) ||
         absl::IsDeadlineExceeded(status) || absl::IsResourceExhausted(status);
}

v1::FinishAttemptRequest Outcome(const GrpcWorkContext& context,
                                 const absl::StatusOr<v1::WorkResult>& result) {
  v1::FinishAttemptRequest request;
  *request.mutable_attempt() = context.item().attempt();
  if (result.ok()) {
    *request.mutable_result() = *result;
    return request;
  }
  absl::Status status = result.status();
  if (context.user_cancelled()) {
    status = MakeError(absl::StatusCode::kCancelled, "CANCELLED",
                       "cancelled on request");
  } else if (StopRequested()) {
    status = MakeError(absl::StatusCode::kUnavailable, "WORKER_STOPPED",
                       "the worker was told to stop");
  }
  *request.mutable_error() = ToJobError(status);
  request.set_retriable(IsRetriable(status));
  return request;
}

// Asks for work; a stop ends the wait for it.
absl::Status Lease(Stub* stub, const v1::LeaseAttemptRequest& request,
                   v1::LeaseAttemptResponse* response) {
  grpc::ClientContext context;
  SetDeadline(&context, kLeaseWait + kCallTimeout);
  grpc::Status status;
  absl::Notification done;
  stub->async()->LeaseAttempt(&context, &request, response,
                              [&](grpc::Status answer) {
                                status = std::move(answer);
                                done.Notify();
                              });
  while (!done.WaitForNotificationWithTimeout(absl::Milliseconds(100))) {
    if (StopRequested()) context.TryCancel();
  }
  return FromGrpc(status);
}

// Leases and does one attempt. False: there was none.
absl::StatusOr<bool> WorkOnce(Stub* stub, ArtifactClient* artifacts,
                              BlobCache* cache, const WorkerOptions& options,
                              const WorkHandler& handler) {
  v1::LeaseAttemptRequest request;
  request.set_worker(options.worker_name);
  for (const v1::WorkKind kind : options.kinds) request.add_kinds(kind);
  *request.mutable_wait() = ToProto(kLeaseWait);
  v1::LeaseAttemptResponse response;
  RETURN_IF_ERROR(Lease(stub, request, &response));
  if (!response.has_work()) return false;
  const v1::Attempt attempt = response.work().attempt();
  const std::string scratch =
      absl::StrCat(options.cache_dir, "/scratch/", options.worker_name, "-",
                   attempt.epoch());
  std::error_code error;
  std::filesystem::remove_all(scratch, error);
  RETURN_IF_ERROR(MakeFolder(scratch));
  const absl::Cleanup remove_scratch = [&] {
    std::filesystem::remove_all(scratch, error);
  };
  LogInfo("attempt_started",
          {{"resource", attempt.resource()}, {"epoch", attempt.epoch()}});
  GrpcWorkContext context(stub, artifacts, cache, response.work(),
                          absl::Seconds(response.lease().seconds()), scratch);
  const absl::StatusOr<v1::WorkResult> result = handler(context);
  LogInfo("attempt_ended", {{"resource", attempt.resource()},
                            {"epoch", attempt.epoch()},
                            {"status", result.status().ToString()}});
  if (context.stale()) return true;
  RETURN_IF_ERROR(context.Finish(Outcome(context, result)));
  return true;
}

absl::Status Run(const WorkerOptions& options, const WorkHandler& handler) {
  InstallStopSignal();
  RETURN_IF_ERROR(MakeFolder(options.cache_dir));
  ServerRunner server(options.server);
  RETURN_IF_ERROR(server.Start());
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(64 << 20);
  // A controller that comes back is noticed within two seconds.
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  const auto channel = grpc::CreateCustomChannel(
      options.controller, grpc::InsecureChannelCredentials(), arguments);
  const auto stub = v1::WorkerService::NewStub(channel);
  ArtifactClient artifacts(channel, kRetryFor);
  BlobCache cache(channel, absl::StrCat(options.cache_dir, "/blobs"),
                  options.cache_bytes_max, kRetryFor);
  bool was_away = false;
  while (!StopRequested()) {
    const absl::StatusOr<bool> worked =
        WorkOnce(stub.get(), &artifacts, &cache, options, handler);
    if (worked.ok()) {
      was_away = false;
      continue;
    }
    if (!was_away) {
      LogWarning("work_interrupted", {{"status", worked.status().ToString()}});
    }
    was_away = true;
    WaitForStop(absl::Milliseconds(500));
  }
  server.Stop();
  return absl::OkStatus();
}

}  // namespace

int RunWorker(const WorkerOptions& options, const WorkHandler& handler) {
  WorkerOptions filled = options;
  if (filled.worker_name.empty()) {
    // Containers all have the same pids, so the pid alone names nobody.
    char host[256] = "worker";
    ::gethostname(host, sizeof(host) - 1);
    filled.worker_name = absl::StrCat(host, "-", ::getpid());
  }
  const absl::Status status = Run(filled, handler);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s: %s\n", filled.worker_name.c_str(),
               std::string(status.message()).c_str());
  return 1;
}

}  // namespace onegrid::common
