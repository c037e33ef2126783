#include "services/inference/rpc_reply.h"

#include <chrono>
#include <string>

#include "absl/time/time.h"
#include "proto/google/rpc/error_details.pb.h"
#include "services/common/error_info.h"
#include "services/common/grpc_status.h"
#include "services/common/log.h"

namespace onegrid::inference {
namespace {

// How long a caller refused for a full queue should wait.
constexpr int kRetryDelaySeconds = 1;

}  // namespace

CallContext ContextOf(const grpc::ServerContext* context) {
  CallContext call;
  call.cancelled = [context] { return context->IsCancelled(); };
  if (context->deadline() != std::chrono::system_clock::time_point::max()) {
    call.deadline = absl::FromChrono(context->deadline());
  }
  return call;
}

void LogFailure(const char* rpc, const absl::Status& status) {
  if (status.ok()) return;
  common::LogWarning("rpc_failed",
                     {{"rpc", rpc},
                      {"code", common::StatusCodeName(status.code())},
                      {"reason", common::ErrorReason(status)}});
}

grpc::Status Reply(const char* rpc, const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  LogFailure(rpc, status);
  grpc::Status reply = common::ToGrpc(status);
  if (common::ErrorReason(status) != "QUEUE_FULL") return reply;
  google::rpc::Status details;
  details.ParseFromString(reply.error_details());
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(kRetryDelaySeconds);
  details.add_details()->PackFrom(retry);
  return grpc::Status(reply.error_code(), reply.error_message(),
                      details.SerializeAsString());
}

}  // namespace onegrid::inference
