#include "services/inference/open_inference_grpc.h"

#include "services/common/error_info.h"
#include "services/inference/open_inference_response.h"
#include "services/inference/rpc_reply.h"

namespace onegrid::inference {

void OpenInferenceGrpc::Drain() {
  absl::MutexLock lock(&mu_);
  draining_ = true;
  for (const auto& [stream, context] : streams_) {
    stream->Drain([context = context] { context->TryCancel(); });
  }
}

grpc::Status OpenInferenceGrpc::ServerLive(grpc::ServerContext*,
                                           const oip::ServerLiveRequest*,
                                           oip::ServerLiveResponse* response) {
  response->set_live(true);
  return grpc::Status::OK;
}

grpc::Status OpenInferenceGrpc::ServerReady(
    grpc::ServerContext*, const oip::ServerReadyRequest*,
    oip::ServerReadyResponse* response) {
  absl::MutexLock lock(&mu_);
  response->set_ready(!draining_);
  return grpc::Status::OK;
}

grpc::Status OpenInferenceGrpc::ModelReady(
    grpc::ServerContext*, const oip::ModelReadyRequest* request,
    oip::ModelReadyResponse* response) {
  const absl::Status status =
      service_.CheckModel(request->name(), request->version());
  absl::MutexLock lock(&mu_);
  response->set_ready(status.ok() && !draining_);
  return Reply("ModelReady", status);
}

grpc::Status OpenInferenceGrpc::ServerMetadata(
    grpc::ServerContext*, const oip::ServerMetadataRequest*,
    oip::ServerMetadataResponse* response) {
  *response = MakeServerMetadata();
  return grpc::Status::OK;
}

grpc::Status OpenInferenceGrpc::ModelMetadata(
    grpc::ServerContext*, const oip::ModelMetadataRequest* request,
    oip::ModelMetadataResponse* response) {
  *response = MakeModelMetadata(service_.model_name());
  return Reply("ModelMetadata",
               service_.CheckModel(request->name(), request->version()));
}

grpc::Status OpenInferenceGrpc::ModelInfer(
    grpc::ServerContext* context, const oip::ModelInferRequest* request,
    oip::ModelInferResponse* response) {
  return Reply("ModelInfer", service_.Infer(*request, ContextOf(context)),
               response);
}

grpc::Status OpenInferenceGrpc::ModelStreamInfer(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<oip::ModelStreamInferResponse,
                             oip::ModelInferRequest>* stream) {
  OpenInferenceStream requests(
      service_, ContextOf(context),
      [stream](const oip::ModelStreamInferResponse& response) {
        return stream->Write(response);
      },
      [](const absl::Status& status) {
        LogFailure("ModelStreamInfer", status);
      });
  {
    absl::MutexLock lock(&mu_);
    if (draining_) {
      return Reply(
          "ModelStreamInfer",
          common::MakeError(absl::StatusCode::kUnavailable, "SERVER_DRAINING",
                            "the server takes no more requests"));
    }
    streams_[&requests] = context;
  }
  requests.Run([stream](oip::ModelInferRequest* request) {
    return stream->Read(request);
  });
  absl::MutexLock lock(&mu_);
  streams_.erase(&requests);
  return Reply("ModelStreamInfer", CheckCall(ContextOf(context)));
}

grpc::Status OpenInferenceGrpc::ModelConfig(
    grpc::ServerContext*, const oip::ModelConfigRequest* request,
    oip::ModelConfigResponse* response) {
  *response->mutable_config() = MakeModelConfig(service_.model_name());
  return Reply("ModelConfig",
               service_.CheckModel(request->name(), request->version()));
}

grpc::Status OpenInferenceGrpc::ModelStatistics(
    grpc::ServerContext*, const oip::ModelStatisticsRequest* request,
    oip::ModelStatisticsResponse* response) {
  return Reply("ModelStatistics", service_.Statistics(*request), response);
}

grpc::Status OpenInferenceGrpc::RepositoryIndex(
    grpc::ServerContext*, const oip::RepositoryIndexRequest*,
    oip::RepositoryIndexResponse* response) {
  *response = MakeRepositoryIndex(service_.model_name());
  return grpc::Status::OK;
}

}  // namespace onegrid::inference
