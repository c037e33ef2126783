// An inference server whose answers tests can foresee.
#ifndef SERVICES_GATEWAY_FAKE_BACKEND_H_
#define SERVICES_GATEWAY_FAKE_BACKEND_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "proto/onegrid/v1/generation.grpc.pb.h"
#include "proto/onegrid/v1/vocabulary.grpc.pb.h"

namespace onegrid::gateway {

// The texts of the fake's tokens: bytes from kFirstByte on, marks from
// kFirstControl on, and a few characters. BOS is a control token. Thread-safe.
class FakeVocabulary final : public v1::VocabularyService::Service {
 public:
  // Those so far.
  int calls() const { return calls_; }

  grpc::Status GetVocabulary(grpc::ServerContext*,
                             const v1::GetVocabularyRequest*,
                             v1::Vocabulary*) override;

 private:
  std::atomic<int> calls_ = 0;
};

// Has the adapter "tuned" and repeats the prompt, a character a token, each
// with log-probability -0.5, the most likely one unless the prompt holds
// "unlikely"; those of the ids after it have -1.5, -2.5 and so on. A logit_bias
// of 100 puts a token in the place of every one, and one of -100 leaves it out.
// BOS reads
// "<bos>" and control tokens in the prompt read as "[start_of_turn]" and
// "[|turn]", so that they differ from text that spells them. Prompts that hold
// one of these do something else:
//   "say:"        what follows it up to the end of the turn, its marks as
//                 control tokens
//   "spell:"      the same, its marks as any other text
//   "bytes:"      the same, a byte a token
//   "queue full"  RESOURCE_EXHAUSTED (QUEUE_FULL), to be retried in 7 s
//   "draining"    UNAVAILABLE (SERVER_DRAINING)
//   "too long"    INVALID_ARGUMENT (CONTEXT_TOO_LONG)
//   "crash"       DATA_LOSS without an ErrorInfo
//   "break off"   INTERNAL after three tokens
//   "forever"     "x" every 10 ms until cancelled
//   "silent"      nothing until cancelled
// Thread-safe.
class FakeBackend final : public v1::GenerationService::Service {
 public:
  static constexpr int32_t kBos = 2;
  static constexpr int32_t kFirstByte = 10;
  static constexpr int32_t kFirstControl = 300;

  // Without them there are no turns in the vocabulary. chat_format: of
  // ServerInfo.
  explicit FakeBackend(bool has_control_tokens = true,
                       std::string chat_format = "gemma3")
      : has_control_tokens_(has_control_tokens),
        chat_format_(std::move(chat_format)) {}

  // The requests to generate and to score so far.
  std::vector<v1::GenerateRequest> requests() const;
  std::vector<v1::ScoreTokensRequest> score_requests() const;
  FakeVocabulary& vocabulary() { return vocabulary_; }
  // Generations that saw themselves cancelled, and those in progress.
  int cancelled() const { return cancelled_; }
  int running() const { return running_; }

  grpc::Status Generate(grpc::ServerContext*, const v1::GenerateRequest*,
                        grpc::ServerWriter<v1::GenerateResponse>*) override;
  grpc::Status ScoreTokens(grpc::ServerContext*, const v1::ScoreTokensRequest*,
                           v1::ScoreTokensResponse*) override;
  grpc::Status Tokenize(grpc::ServerContext*, const v1::TokenizeRequest*,
                        v1::TokenizeResponse*) override;
  grpc::Status ListAdapters(grpc::ServerContext*,
                            const v1::ListAdaptersRequest*,
                            v1::ListAdaptersResponse*) override;
  grpc::Status GetServerInfo(grpc::ServerContext*,
                             const v1::GetServerInfoRequest*,
                             v1::ServerInfo*) override;
  // Running: those that linger; the rest are numbers of their own.
  grpc::Status GetLoad(grpc::ServerContext*, const v1::GetLoadRequest*,
                       v1::Load*) override;

 private:
  grpc::Status Linger(grpc::ServerContext* context, bool writes,
                      grpc::ServerWriter<v1::GenerateResponse>* writer);

  const bool has_control_tokens_;
  const std::string chat_format_;
  FakeVocabulary vocabulary_;
  std::atomic<int> cancelled_ = 0;
  std::atomic<int> running_ = 0;
  mutable absl::Mutex mu_;
  std::vector<v1::GenerateRequest> requests_ ABSL_GUARDED_BY(mu_);
  std::vector<v1::ScoreTokensRequest> score_requests_ ABSL_GUARDED_BY(mu_);
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_FAKE_BACKEND_H_
