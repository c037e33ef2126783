#include "services/gateway/backend.h"

#include <chrono>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/async_stream.h"
#include "proto/google/rpc/error_details.pb.h"
#include "services/common/error_info.h"
#include "services/common/grpc_status.h"
#include "services/gateway/openai_error.h"

namespace onegrid::gateway {
namespace {

constexpr int kMessageBytesMax = 64 << 20;
// A backend that is back must not look dead for gRPC's own two minutes.
constexpr int kReconnectMsMax = 1000;
constexpr auto kPoll = std::chrono::milliseconds(50);

// The error with its ErrorInfo; a RetryInfo is added to the metadata.
absl::Status FromBackend(const grpc::Status& grpc_status) {
  const absl::Status status = common::FromGrpc(grpc_status);
  google::rpc::Status details;
  if (status.ok() || !details.ParseFromString(grpc_status.error_details())) {
    return status;
  }
  for (const google::protobuf::Any& any : details.details()) {
    google::rpc::RetryInfo retry;
    if (!any.UnpackTo(&retry)) continue;
    std::map<std::string, std::string> metadata = common::ErrorMetadata(status);
    metadata[std::string(kRetrySecondsKey)] =
        absl::StrCat(retry.retry_delay().seconds());
    return common::MakeError(status.code(), common::ErrorReason(status),
                             status.message(), metadata);
  }
  return status;
}

using Stub = v1::GenerationService::Stub;

// A call without arguments.
template <typename Request, typename Response>
absl::StatusOr<Response> Ask(Stub& stub,
                             grpc::Status (Stub::*method)(grpc::ClientContext*,
                                                          const Request&,
                                                          Response*),
                             absl::Duration timeout) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  Response response;
  const grpc::Status status = (stub.*method)(&context, {}, &response);
  if (!status.ok()) return FromBackend(status);
  return response;
}

}  // namespace

GenerateCall::GenerateCall(v1::GenerationService::Stub& stub,
                           const v1::GenerateRequest& request,
                           absl::Time deadline) {
  context_.set_deadline(absl::ToChronoTime(deadline));
  reader_ = stub.PrepareAsyncGenerate(&context_, request, &queue_);
  reader_->StartCall(this);
}

GenerateCall::~GenerateCall() {
  if (!finished_) {
    context_.TryCancel();
    const AbandonedFn never = [] { return false; };
    if (!started_) Await(never);
    Finish(never);
  }
  queue_.Shutdown();
  void* tag;
  bool ok;
  while (queue_.Next(&tag, &ok)) {
  }
}

bool GenerateCall::Await(const AbandonedFn& abandoned) {
  void* tag;
  bool ok = false;
  while (true) {
    const auto until = std::chrono::system_clock::now() + kPoll;
    switch (queue_.AsyncNext(&tag, &ok, until)) {
      case grpc::CompletionQueue::GOT_EVENT:
        return ok;
      case grpc::CompletionQueue::SHUTDOWN:
        return false;
      case grpc::CompletionQueue::TIMEOUT:
        if (!cancelled_ && abandoned()) {
          cancelled_ = true;
          context_.TryCancel();
        }
    }
  }
}

void GenerateCall::Finish(const AbandonedFn& abandoned) {
  grpc::Status status;
  reader_->Finish(&status, this);
  Await(abandoned);
  finished_ = true;
  status_ = FromBackend(status);
}

bool GenerateCall::Next(v1::GenerateResponse* response,
                        const AbandonedFn& abandoned) {
  if (finished_) return false;
  // Also where messages come too fast for a wait to time out.
  if (!cancelled_ && abandoned()) {
    cancelled_ = true;
    context_.TryCancel();
  }
  bool ok = true;
  if (!started_) {
    ok = Await(abandoned);
    started_ = true;
  }
  if (ok) {
    reader_->Read(response, this);
    if (Await(abandoned)) return true;
  }
  Finish(abandoned);
  return false;
}

Backend::Backend(const std::string& endpoint) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  arguments.SetMaxSendMessageSize(kMessageBytesMax);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectMsMax / 10);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kReconnectMsMax / 10);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectMsMax);
  const auto channel = grpc::CreateCustomChannel(
      endpoint, grpc::InsecureChannelCredentials(), arguments);
  stub_ = v1::GenerationService::NewStub(channel);
  vocabulary_ = v1::VocabularyService::NewStub(channel);
}

absl::StatusOr<v1::ServerInfo> Backend::Info(absl::Duration timeout) {
  return Ask(*stub_, &Stub::GetServerInfo, timeout);
}

absl::StatusOr<v1::Load> Backend::Load(absl::Duration timeout) {
  return Ask(*stub_, &Stub::GetLoad, timeout);
}

absl::StatusOr<std::vector<std::string>> Backend::Adapters(
    absl::Duration timeout) {
  ASSIGN_OR_RETURN(const v1::ListAdaptersResponse response,
                   Ask(*stub_, &Stub::ListAdapters, timeout));
  std::vector<std::string> names;
  for (const v1::AdapterInfo& adapter : response.adapters()) {
    names.push_back(adapter.name());
  }
  return names;
}

absl::StatusOr<std::vector<int32_t>> Backend::Tokenize(
    absl::string_view text, bool add_bos, bool parse_control_tokens,
    absl::Time deadline) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  v1::TokenizeRequest request;
  request.set_text(std::string(text));
  request.set_add_bos(add_bos);
  request.set_parse_control_tokens(parse_control_tokens);
  v1::TokenizeResponse response;
  const grpc::Status status = stub_->Tokenize(&context, request, &response);
  if (!status.ok()) return FromBackend(status);
  return std::vector<int32_t>(response.token_ids().begin(),
                              response.token_ids().end());
}

absl::StatusOr<v1::ScoreTokensResponse> Backend::Score(
    const v1::ScoreTokensRequest& request, absl::Time deadline,
    const AbandonedFn& abandoned) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  grpc::CompletionQueue queue;
  const auto reader = stub_->AsyncScoreTokens(&context, request, &queue);
  v1::ScoreTokensResponse response;
  grpc::Status status;
  reader->Finish(&response, &status, &status);
  void* tag;
  bool ok;
  bool cancelled = false;
  // The end comes always, at the latest with the deadline.
  while (queue.AsyncNext(&tag, &ok, std::chrono::system_clock::now() + kPoll) ==
         grpc::CompletionQueue::TIMEOUT) {
    if (!cancelled && abandoned()) {
      cancelled = true;
      context.TryCancel();
    }
  }
  if (!status.ok()) return FromBackend(status);
  return response;
}

absl::StatusOr<std::shared_ptr<const TokenTexts>> Backend::Tokens(
    absl::Time deadline) {
  ASSIGN_OR_RETURN(const v1::ServerInfo info, Info(deadline - absl::Now()));
  {
    absl::MutexLock lock(&mu_);
    if (tokens_ != nullptr &&
        tokens_->artifact_sha256() == info.artifact_sha256()) {
      return tokens_;
    }
  }
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  v1::Vocabulary vocabulary;
  const grpc::Status status =
      vocabulary_->GetVocabulary(&context, {}, &vocabulary);
  if (!status.ok()) return FromBackend(status);
  if (vocabulary.artifact_sha256() != info.artifact_sha256()) {
    return common::MakeError(
        absl::StatusCode::kUnavailable, "BACKEND_CHANGED",
        "the inference server serves another model than a moment ago");
  }
  auto tokens = std::make_shared<const TokenTexts>(std::move(vocabulary));
  absl::MutexLock lock(&mu_);
  tokens_ = tokens;
  return tokens;
}

std::unique_ptr<GenerateCall> Backend::Generate(
    const v1::GenerateRequest& request, absl::Time deadline) {
  return std::make_unique<GenerateCall>(*stub_, request, deadline);
}

}  // namespace onegrid::gateway
