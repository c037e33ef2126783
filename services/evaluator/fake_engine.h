// An inference server with scripted answers, for this folder's tests.
#ifndef SERVICES_EVALUATOR_FAKE_ENGINE_H_
#define SERVICES_EVALUATOR_FAKE_ENGINE_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "grpcpp/server.h"
#include "proto/onegrid/v1/generation.grpc.pb.h"

namespace onegrid::evaluator {

// Serves on loopback from construction on. Token ids are bytes + 4; BOS is 2,
// the end token 1. Scripts are set before the first call.
class FakeEngine final : public v1::GenerationService::Service {
 public:
  FakeEngine();
  ~FakeEngine() override;

  const std::string& endpoint() const { return endpoint_; }

  static std::vector<int32_t> Ids(const std::string& text);

  // Greedy continuation of a prompt text. Default: empty.
  std::function<std::string(const std::string& prompt)> continuation;
  v1::FinishReason finish_reason = v1::END_OF_SEQUENCE;
  // Log-probability of every scored id, and of candidate `index`.
  float logprob = -0.5f;
  std::function<float(int index)> candidate_logprob;
  int32_t argmax = 0;
  std::string artifact_sha256 = "aa";
  // This many calls of Generate and ScoreTokens find the queue full.
  std::atomic<int> queue_full{0};
  // Scores one id too few.
  bool short_scores = false;

  grpc::Status Generate(grpc::ServerContext*, const v1::GenerateRequest*,
                        grpc::ServerWriter<v1::GenerateResponse>*) override;
  grpc::Status ScoreTokens(grpc::ServerContext*, const v1::ScoreTokensRequest*,
                           v1::ScoreTokensResponse*) override;
  grpc::Status Tokenize(grpc::ServerContext*, const v1::TokenizeRequest*,
                        v1::TokenizeResponse*) override;
  grpc::Status GetServerInfo(grpc::ServerContext*,
                             const v1::GetServerInfoRequest*,
                             v1::ServerInfo*) override;

 private:
  grpc::Status CheckQueue();

  std::unique_ptr<grpc::Server> server_;
  std::string endpoint_;
};

}  // namespace onegrid::evaluator

#endif  // SERVICES_EVALUATOR_FAKE_ENGINE_H_
