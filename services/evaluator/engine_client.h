// A client of one inference server, in the terms the evaluator thinks in.
#ifndef SERVICES_EVALUATOR_ENGINE_CLIENT_H_
#define SERVICES_EVALUATOR_ENGINE_CLIENT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/onegrid/v1/generation.grpc.pb.h"

namespace onegrid::evaluator {

// One finished generation.
struct Generation {
  std::vector<int32_t> token_ids;  // without the end token
  v1::Finished finished;
};

// Thread-safe. Each call has a deadline of call_timeout and waits out a full
// queue (QUEUE_FULL) for as long; its errors are those of the rpc.
class EngineClient {
 public:
  explicit EngineClient(const std::string& endpoint,
                        absl::Duration call_timeout = absl::Minutes(10));

  const std::string& endpoint() const { return endpoint_; }

  // Waits up to `timeout` for the server. UNAVAILABLE names the endpoint.
  absl::StatusOr<v1::ServerInfo> Info(
      absl::Duration timeout = absl::Seconds(30));

  // Control tokens in the text are not parsed: they are data.
  absl::StatusOr<std::vector<int32_t>> Tokenize(absl::string_view text,
                                                bool add_bos);

  absl::StatusOr<v1::ScoreTokensResponse> Score(
      const v1::ScoreTokensRequest& request);

  // Greedy; stops at the model's end tokens unless ignore_eos.
  absl::StatusOr<Generation> Generate(const std::vector<int32_t>& prompt,
                                      int max_tokens, bool ignore_eos);

 private:
  absl::StatusOr<Generation> GenerateOnce(const v1::GenerateRequest& request);

  std::string endpoint_;
  absl::Duration call_timeout_;
  std::unique_ptr<v1::GenerationService::Stub> stub_;
};

// What the server says of itself, on one line: "avx512_vnni; <kernels>;
// activations int8 groups of 32; KV cache int8 ...; 2 threads (affinity)".
std::string DescribeEngine(const v1::ServerInfo& info);

// FAILED_PRECONDITION (ARTIFACT_MISMATCH) if the server serves anything but
// the artifact `sha256`; OK if `sha256` is empty.
absl::Status CheckArtifact(const v1::ServerInfo& info,
                           const std::string& endpoint,
                           const std::string& sha256);

}  // namespace onegrid::evaluator

#endif  // SERVICES_EVALUATOR_ENGINE_CLIENT_H_
