#include "services/inference/generation_grpc.h"

#include "services/inference/rpc_reply.h"

namespace onegrid::inference {

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

}  // namespace onegrid::inference
