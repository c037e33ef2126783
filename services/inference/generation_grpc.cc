#include "services/inference/generation_grpc.h"

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/log.h"
#include "services/inference/rpc_reply.h"

namespace onegrid::inference {

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
  return Reply(
      "ScoreTokens",
      model_.Get()->service().ScoreTokens(*request, ContextOf(context)),
      response);
}

grpc::Status GenerationGrpc::Tokenize(grpc::ServerContext*,
                                      const v1::TokenizeRequest* request,
                                      v1::TokenizeResponse* response) {
  return Reply("Tokenize", model_.Get()->service().Tokenize(*request),
               response);
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
  return Reply("LoadAdapter", model_.Get()->service().LoadAdapter(*request),
               response);
}

grpc::Status GenerationGrpc::UnloadAdapter(
    grpc::ServerContext*, const v1::UnloadAdapterRequest* request,
    v1::UnloadAdapterResponse*) {
  return Reply("UnloadAdapter",
               model_.Get()->service().UnloadAdapter(*request));
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

grpc::Status GenerationGrpc::GetLoad(grpc::ServerContext*,
                                     const v1::GetLoadRequest*,
                                     v1::Load* response) {
  *response = model_.GetLoad();
  return grpc::Status::OK;
}

grpc::Status GenerationGrpc::Drain(grpc::ServerContext*,
                                   const v1::DrainRequest*,
                                   v1::DrainResponse* response) {
  if (!drain_) {
    return Reply("Drain",
                 common::MakeError(absl::StatusCode::kPermissionDenied,
                                   "DRAIN_NOT_ALLOWED",
                                   "the server was started without "
                                   "--allow_drain; SIGTERM drains it"));
  }
  // Not ready before the first call is refused.
  drain_();
  model_.Drain();
  const v1::Load load = model_.GetLoad();
  common::LogInfo("draining", {{"running", absl::StrCat(load.running())},
                               {"queued", absl::StrCat(load.queued())}});
  response->set_running(load.running());
  response->set_queued(load.queued());
  return grpc::Status::OK;
}

}  // namespace onegrid::inference
