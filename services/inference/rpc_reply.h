// What every rpc of the server does with its context and its status.
#ifndef SERVICES_INFERENCE_RPC_REPLY_H_
#define SERVICES_INFERENCE_RPC_REPLY_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/grpcpp.h"
#include "services/inference/call_context.h"

namespace onegrid::inference {

// `context` must outlive the call.
CallContext ContextOf(const grpc::ServerContext* context);

// Logs the failure of `rpc`; nothing for an OK status.
void LogFailure(const char* rpc, const absl::Status& status);

// LogFailure, and the status for the wire, with RetryInfo on QUEUE_FULL.
grpc::Status Reply(const char* rpc, const absl::Status& status);

// The same, and the response if there is one.
template <typename T>
grpc::Status Reply(const char* rpc, absl::StatusOr<T> result, T* response) {
  if (result.ok()) *response = *std::move(result);
  return Reply(rpc, result.status());
}

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_RPC_REPLY_H_
