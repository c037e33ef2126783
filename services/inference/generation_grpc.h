// onegrid.v1.GenerationService over gRPC: one line of logic per rpc.
#ifndef SERVICES_INFERENCE_GENERATION_GRPC_H_
#define SERVICES_INFERENCE_GENERATION_GRPC_H_

#include "grpcpp/grpcpp.h"
#include "proto/onegrid/v1/generation.grpc.pb.h"
#include "services/inference/generation_service.h"

namespace onegrid::inference {

// Thread-safe. A call occupies one of gRPC's threads until it ends.
class GenerationGrpc final : public v1::GenerationService::Service {
 public:
  // `service` must outlive this object.
  explicit GenerationGrpc(GenerationService& service) : service_(service) {}

  grpc::Status Generate(
      grpc::ServerContext* context, const v1::GenerateRequest* request,
      grpc::ServerWriter<v1::GenerateResponse>* writer) override;
  grpc::Status ScoreTokens(grpc::ServerContext* context,
                           const v1::ScoreTokensRequest* request,
                           v1::ScoreTokensResponse* response) override;
  grpc::Status Tokenize(grpc::ServerContext* context,
                        const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override;
  grpc::Status GetServerInfo(grpc::ServerContext* context,
                             const v1::GetServerInfoRequest* request,
                             v1::ServerInfo* response) override;
  grpc::Status GetLoad(grpc::ServerContext* context,
                       const v1::GetLoadRequest* request,
                       v1::Load* response) override;

 private:
  GenerationService& service_;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_GENERATION_GRPC_H_
