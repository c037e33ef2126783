// The inference server behind the gateway.
#ifndef SERVICES_GATEWAY_BACKEND_H_
#define SERVICES_GATEWAY_BACKEND_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "grpcpp/completion_queue.h"
#include "proto/onegrid/v1/generation.grpc.pb.h"
#include "proto/onegrid/v1/vocabulary.grpc.pb.h"
#include "services/gateway/token_texts.h"

namespace onegrid::gateway {

// Asked now and then during a call; true ends it. Must be cheap.
using AbandonedFn = std::function<bool()>;

// One generation in progress. Thread-compatible. The stub's channel must
// outlive it. Destroying it cancels what is not finished.
class GenerateCall {
 public:
  // Begins at once; does not block.
  GenerateCall(v1::GenerationService::Stub& stub,
               const v1::GenerateRequest& request, absl::Time deadline);
  ~GenerateCall();
  GenerateCall(const GenerateCall&) = delete;
  GenerateCall& operator=(const GenerateCall&) = delete;

  // Blocks until the next message, true, or the end, false. Cancels within
  // 50 ms once abandoned() is true.
  bool Next(v1::GenerateResponse* response, const AbandonedFn& abandoned);

  // After Next has returned false: OK when the generation came to its end.
  // Errors of generation.proto; Cancelled when it was abandoned.
  const absl::Status& status() const { return status_; }

 private:
  // Blocks until the operation in flight is over; its success.
  bool Await(const AbandonedFn& abandoned);
  void Finish(const AbandonedFn& abandoned);

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::ClientAsyncReader<v1::GenerateResponse>> reader_;
  bool started_ = false;
  bool finished_ = false;
  bool cancelled_ = false;
  absl::Status status_;
};

// Thread-safe.
class Backend {
 public:
  // `endpoint`: host:port. Connects when first needed, and again by itself.
  explicit Backend(const std::string& endpoint);

  // What is served. Unavailable: nobody answers; DeadlineExceeded.
  absl::StatusOr<v1::ServerInfo> Info(absl::Duration timeout);

  // Names of the adapters that the server has loaded. Unavailable;
  // DeadlineExceeded.
  absl::StatusOr<std::vector<std::string>> Adapters(absl::Duration timeout);

  // How much it has to do. Unavailable: nobody answers; DeadlineExceeded;
  // Unimplemented: a server that is older.
  absl::StatusOr<v1::Load> Load(absl::Duration timeout);

  // The ids of `text`. InvalidArgument: not UTF-8; Unavailable;
  // DeadlineExceeded.
  absl::StatusOr<std::vector<int32_t>> Tokenize(absl::string_view text,
                                                bool add_bos,
                                                bool parse_control_tokens,
                                                absl::Time deadline);

  // Cancels within 50 ms once abandoned() is true. Errors of generation.proto.
  absl::StatusOr<v1::ScoreTokensResponse> Score(
      const v1::ScoreTokensRequest& request, absl::Time deadline,
      const AbandonedFn& abandoned);

  // The vocabulary of the artifact that Info names, asked for once and kept
  // until it names another one. Unavailable: the backend changed in between,
  // or nobody answers; DeadlineExceeded; Unimplemented: it has none to give.
  absl::StatusOr<std::shared_ptr<const TokenTexts>> Tokens(absl::Time deadline);

  std::unique_ptr<GenerateCall> Generate(const v1::GenerateRequest& request,
                                         absl::Time deadline);

 private:
  std::unique_ptr<v1::GenerationService::Stub> stub_;
  std::unique_ptr<v1::VocabularyService::Stub> vocabulary_;
  absl::Mutex mu_;
  std::shared_ptr<const TokenTexts> tokens_ ABSL_GUARDED_BY(mu_);
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_BACKEND_H_
