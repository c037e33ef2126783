#include "services/evaluator/fake_engine.h"

#include "absl/strings/str_cat.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"

namespace onegrid::evaluator {
namespace {

constexpr int32_t kFirstByte = 4;
constexpr int32_t kBos = 2;
constexpr int kMessageBytesMax = 64 << 20;

std::string Text(const google::protobuf::RepeatedField<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) {
    if (id >= kFirstByte) text += static_cast<char>(id - kFirstByte);
  }
  return text;
}

}  // namespace

FakeEngine::FakeEngine() {
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                           &port);
  builder.SetMaxReceiveMessageSize(kMessageBytesMax);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  endpoint_ = absl::StrCat("127.0.0.1:", port);
}

FakeEngine::~FakeEngine() { server_->Shutdown(); }

std::vector<int32_t> FakeEngine::Ids(const std::string& text) {
  std::vector<int32_t> ids;
  for (const unsigned char byte : text) ids.push_back(byte + kFirstByte);
  return ids;
}

grpc::Status FakeEngine::CheckQueue() {
  if (queue_full.fetch_sub(1) > 0) {
    return {grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full"};
  }
  return grpc::Status::OK;
}

grpc::Status FakeEngine::Generate(
    grpc::ServerContext*, const v1::GenerateRequest* request,
    grpc::ServerWriter<v1::GenerateResponse>* writer) {
  if (grpc::Status status = CheckQueue(); !status.ok()) return status;
  v1::GenerateResponse response;
  response.mutable_started();
  writer->Write(response);
  std::vector<int32_t> ids;
  if (continuation) ids = Ids(continuation(Text(request->token_ids().ids())));
  for (const int32_t id : ids) {
    response.mutable_delta()->clear_token_ids();
    response.mutable_delta()->add_token_ids(id);
    writer->Write(response);
  }
  v1::Finished* finished = response.mutable_finished();
  finished->set_reason(finish_reason);
  finished->set_prompt_tokens(request->token_ids().ids_size());
  finished->set_completion_tokens(request->stopping().max_tokens());
  finished->mutable_prefill_time()->set_seconds(2);
  finished->mutable_decode_time()->set_seconds(1);
  writer->Write(response);
  return grpc::Status::OK;
}

grpc::Status FakeEngine::ScoreTokens(grpc::ServerContext*,
                                     const v1::ScoreTokensRequest* request,
                                     v1::ScoreTokensResponse* response) {
  if (grpc::Status status = CheckQueue(); !status.ok()) return status;
  const int positions = request->token_ids_size() - request->first_scored() -
                        (short_scores ? 1 : 0);
  for (int i = 0; i < positions; ++i) {
    response->add_logprobs(logprob);
    response->add_argmax_ids(argmax);
  }
  for (int i = 0; i < request->candidate_ids_size(); ++i) {
    response->add_candidate_logprobs(
        candidate_logprob(i % request->candidates_per_position()));
  }
  return grpc::Status::OK;
}

grpc::Status FakeEngine::Tokenize(grpc::ServerContext*,
                                  const v1::TokenizeRequest* request,
                                  v1::TokenizeResponse* response) {
  if (request->add_bos()) response->add_token_ids(kBos);
  for (const int32_t id : Ids(request->text())) response->add_token_ids(id);
  return grpc::Status::OK;
}

grpc::Status FakeEngine::GetServerInfo(grpc::ServerContext*,
                                       const v1::GetServerInfoRequest*,
                                       v1::ServerInfo* response) {
  response->set_artifact_sha256(artifact_sha256);
  response->set_isa("fake");
  response->set_threads(3);
  return grpc::Status::OK;
}

}  // namespace onegrid::evaluator
