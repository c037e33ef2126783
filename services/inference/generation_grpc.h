// onegrid.v1.GenerationService over gRPC: one line of logic per rpc.
#ifndef SERVICES_INFERENCE_GENERATION_GRPC_H_
#define SERVICES_INFERENCE_GENERATION_GRPC_H_

#include <functional>
#include <utility>

#include "grpcpp/grpcpp.h"
#include "proto/onegrid/v1/generation.grpc.pb.h"
#include "services/inference/model_slot.h"

namespace onegrid::inference {

// Thread-safe. A call occupies one of gRPC's threads until it ends.
class GenerationGrpc final : public v1::GenerationService::Service {
 public:
  // `model` must outlive this object. `drain`: what Drain does besides; empty:
  // it is not allowed.
  explicit GenerationGrpc(ModelSlot& model, std::function<void()> drain = {})
      : model_(model), drain_(std::move(drain)) {}

  grpc::Status Generate(
      grpc::ServerContext* context, const v1::GenerateRequest* request,
      grpc::ServerWriter<v1::GenerateResponse>* writer) override;
  grpc::Status ScoreTokens(grpc::ServerContext* context,
                           const v1::ScoreTokensRequest* request,
                           v1::ScoreTokensResponse* response) override;
  grpc::Status Tokenize(grpc::ServerContext* context,
                        const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override;
  grpc::Status LoadModel(grpc::ServerContext* context,
                         const v1::LoadModelRequest* request,
                         v1::ServerInfo* response) override;
  grpc::Status LoadAdapter(grpc::ServerContext* context,
                           const v1::LoadAdapterRequest* request,
                           v1::AdapterInfo* response) override;
  grpc::Status UnloadAdapter(grpc::ServerContext* context,
                             const v1::UnloadAdapterRequest* request,
                             v1::UnloadAdapterResponse* response) override;
  grpc::Status ListAdapters(grpc::ServerContext* context,
                            const v1::ListAdaptersRequest* request,
                            v1::ListAdaptersResponse* response) override;
  grpc::Status GetServerInfo(grpc::ServerContext* context,
                             const v1::GetServerInfoRequest* request,
                             v1::ServerInfo* response) override;
  grpc::Status GetLoad(grpc::ServerContext* context,
                       const v1::GetLoadRequest* request,
                       v1::Load* response) override;

  grpc::Status Drain(grpc::ServerContext* context,
                     const v1::DrainRequest* request,
                     v1::DrainResponse* response) override;

 private:
  ModelSlot& model_;
  const std::function<void()> drain_;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_GENERATION_GRPC_H_
