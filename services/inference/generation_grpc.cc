#include "services/inference/generation_grpc.h"

#include <chrono>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/google/rpc/error_details.pb.h"
#include "services/common/error_info.h"
#include "services/common/grpc_status.h"
#include "services/common/log.h"

namespace onegrid::inference {
namespace {

// How long a caller refused for a full queue should wait.
constexpr int kRetryDelaySeconds = 1;

CallContext ContextOf(grpc::ServerContext* context) {
  CallContext call;
  call.cancelled = [context] { return context->IsCancelled(); };
  if (context->deadline() != std::chrono::system_clock::time_point::max()) {
    call.deadline = absl::FromChrono(context->deadline());
  }
  return call;
}

// Logs a failed call and puts RetryInfo on QUEUE_FULL.
grpc::Status Reply(const char* rpc, const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::string reason = common::ErrorReason(status);
  common::LogWarning("rpc_failed",
                     {{"rpc", rpc},
                      {"code", common::StatusCodeName(status.code())},
                      {"reason", reason}});
  grpc::Status reply = common::ToGrpc(status);
  if (reason != "QUEUE_FULL") return reply;
  google::rpc::Status details;
  details.ParseFromString(reply.error_details());
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(kRetryDelaySeconds);
  details.add_details()->PackFrom(retry);
  return grpc::Status(reply.error_code(), reply.error_message(),
                      details.SerializeAsString());
}

template <typename T>
grpc::Status Reply(const char* rpc, absl::StatusOr<T> result, T* response) {
  if (result.ok()) *response = *std::move(result);
  return Reply(rpc, result.status());
}

}  // namespace

grpc::Status GenerationGrpc::Generate(
    grpc::ServerContext* context, const v1::GenerateRequest* request,
    grpc::ServerWriter<v1::GenerateResponse>* writer) {
  return Reply("Generate",
               service_.Generate(*request, ContextOf(context),
                                 [writer](const v1::GenerateResponse& r) {
                                   return writer->Write(r);
                                 }));
}

grpc::Status GenerationGrpc::ScoreTokens(grpc::ServerContext* context,
                                         const v1::ScoreTokensRequest* request,
                                         v1::ScoreTokensResponse* response) {
  return Reply("ScoreTokens",
               service_.ScoreTokens(*request, ContextOf(context)), response);
}

grpc::Status GenerationGrpc::Tokenize(grpc::ServerContext*,
                                      const v1::TokenizeRequest* request,
                                      v1::TokenizeResponse* response) {
  return Reply("Tokenize", service_.Tokenize(*request), response);
}

grpc::Status GenerationGrpc::GetServerInfo(grpc::ServerContext*,
                                           const v1::GetServerInfoRequest*,
                                           v1::ServerInfo* response) {
  *response = service_.info();
  return grpc::Status::OK;
}

grpc::Status GenerationGrpc::GetLoad(grpc::ServerContext*,
                                     const v1::GetLoadRequest*,
                                     v1::Load* response) {
  *response = service_.GetLoad();
  return grpc::Status::OK;
}

}  // namespace onegrid::inference
