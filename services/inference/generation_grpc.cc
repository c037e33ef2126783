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
  const ModelSlot::Handle model = model_.Get();
  return Reply("Generate", model->service().Generate(
                               *request, ContextOf(context),
                               [writer](const v1::GenerateResponse& r) {
                                 return writer->Write(r);
                               }));
}

grpc::Status GenerationGrpc::ScoreTokens(grpc::ServerContext* context,
                                         const v1::ScoreTokensRequest* request,
                                         v1::ScoreTokensResponse* response) {
  return Reply("ScoreTokens",
               model_.Get()->service().ScoreTokens(*request, ContextOf(context)), response);
}

grpc::Status GenerationGrpc::Tokenize(grpc::ServerContext*,
                                      const v1::TokenizeRequest* request,
                                      v1::TokenizeResponse* response) {
  return Reply("Tokenize", model_.Get()->service().Tokenize(*request), response);
}

grpc::Status GenerationGrpc::LoadModel(grpc::ServerContext*,
                                       const v1::LoadModelRequest* request,
                                       v1::ServerInfo* response) {
  const auto model =
      model_.Replace(request->path(), request->artifact_sha256());
  if (model.ok()) *response = (*model)->service().info();
  return Reply("LoadModel", model.status());
}

grpc::Status GenerationGrpc::LoadAdapter(grpc::ServerContext*,
                                         const v1::LoadAdapterRequest* request,
                                         v1::AdapterInfo* response) {
  return Reply("LoadAdapter", model_.Get()->service().LoadAdapter(*request), response);
}

grpc::Status GenerationGrpc::UnloadAdapter(
    grpc::ServerContext*, const v1::UnloadAdapterRequest* request,
    v1::UnloadAdapterResponse*) {
  return Reply("UnloadAdapter", model_.Get()->service().UnloadAdapter(*request));
}

grpc::Status GenerationGrpc::ListAdapters(grpc::ServerContext*,
                                          const v1::ListAdaptersRequest*,
                                          v1::ListAdaptersResponse* response) {
  *response = model_.Get()->service().ListAdapters();
  return grpc::Status::OK;
}

grpc::Status GenerationGrpc::GetServerInfo(grpc::ServerContext*,
                                           const v1::GetServerInfoRequest*,
                                           v1::ServerInfo* response) {
  *response = model_.Get()->service().info();
  return grpc::Status::OK;
}

}  // namespace onegrid::inference
