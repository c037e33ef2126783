#include "services/evaluator/engine_client.h"

#include <chrono>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"
#include "services/common/error_info.h"
#include "services/common/grpc_status.h"

namespace onegrid::evaluator {
namespace {

// A probe window carries 1,024 candidates for each of 512 positions.
constexpr int kMessageBytesMax = 64 << 20;
constexpr absl::Duration kQueueFullPause = absl::Milliseconds(50);

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& endpoint) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  arguments.SetMaxSendMessageSize(kMessageBytesMax);
  return grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(),
                                   arguments);
}

void SetDeadline(grpc::ClientContext& context, absl::Duration timeout) {
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
}

// Repeats `call` while the server's queue is full.
absl::Status WhileQueueFull(absl::Duration timeout,
                            const std::function<absl::Status()>& call) {
  const absl::Time give_up = absl::Now() + timeout;
  for (;;) {
    const absl::Status status = call();
    if (status.code() != absl::StatusCode::kResourceExhausted ||
        absl::Now() > give_up) {
      return status;
    }
    absl::SleepFor(kQueueFullPause);
  }
}

}  // namespace

EngineClient::EngineClient(const std::string& endpoint,
                           absl::Duration call_timeout)
    : endpoint_(endpoint),
      call_timeout_(call_timeout),
      stub_(v1::GenerationService::NewStub(MakeChannel(endpoint))) {}

absl::StatusOr<v1::ServerInfo> EngineClient::Info(absl::Duration timeout) {
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  SetDeadline(context, timeout);
  v1::ServerInfo info;
  const grpc::Status status = stub_->GetServerInfo(&context, {}, &info);
  if (status.ok()) return info;
  return common::MakeError(absl::StatusCode::kUnavailable, "SERVER_UNREACHABLE",
                           absl::StrCat("inference server ", endpoint_, ": ",
                                        status.error_message()),
                           {{"endpoint", endpoint_}});
}

absl::StatusOr<std::vector<int32_t>> EngineClient::Tokenize(
    absl::string_view text, bool add_bos) {
  v1::TokenizeRequest request;
  request.set_text(std::string(text));
  request.set_add_bos(add_bos);
  grpc::ClientContext context;
  SetDeadline(context, call_timeout_);
  v1::TokenizeResponse response;
  RETURN_IF_ERROR(
      common::FromGrpc(stub_->Tokenize(&context, request, &response)));
  return std::vector<int32_t>(response.token_ids().begin(),
                              response.token_ids().end());
}

absl::StatusOr<v1::ScoreTokensResponse> EngineClient::Score(
    const v1::ScoreTokensRequest& request) {
  v1::ScoreTokensResponse response;
  RETURN_IF_ERROR(WhileQueueFull(call_timeout_, [&] {
    grpc::ClientContext context;
    SetDeadline(context, call_timeout_);
    return common::FromGrpc(stub_->ScoreTokens(&context, request, &response));
  }));
  const int first = request.first_scored() > 0 ? request.first_scored() : 1;
  const int positions = request.token_ids_size() - first;
  if (response.logprobs_size() != positions ||
      response.argmax_ids_size() != positions ||
      response.candidate_logprobs_size() != request.candidate_ids_size()) {
    return common::MakeError(
        absl::StatusCode::kInternal, "BAD_RESPONSE",
        absl::StrCat(endpoint_, " scored ", response.logprobs_size(), " of ",
                     positions, " tokens"));
  }
  return response;
}

absl::StatusOr<Generation> EngineClient::GenerateOnce(
    const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  SetDeadline(context, call_timeout_);
  const auto reader = stub_->Generate(&context, request);
  Generation generation;
  bool finished = false;
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (response.has_delta()) {
      generation.token_ids.insert(generation.token_ids.end(),
                                  response.delta().token_ids().begin(),
                                  response.delta().token_ids().end());
    } else if (response.has_finished()) {
      generation.finished = response.finished();
      finished = true;
    }
  }
  RETURN_IF_ERROR(common::FromGrpc(reader->Finish()));
  if (!finished) {
    return common::MakeError(
        absl::StatusCode::kInternal, "BAD_RESPONSE",
        absl::StrCat(endpoint_, " ended a generation without Finished"));
  }
  return generation;
}

absl::StatusOr<Generation> EngineClient::Generate(
    const std::vector<int32_t>& prompt, int max_tokens, bool ignore_eos) {
  v1::GenerateRequest request;
  request.mutable_token_ids()->mutable_ids()->Add(prompt.begin(), prompt.end());
  request.mutable_stopping()->set_max_tokens(max_tokens);
  request.mutable_stopping()->set_ignore_eos(ignore_eos);
  Generation generation;
  RETURN_IF_ERROR(WhileQueueFull(call_timeout_, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(generation, GenerateOnce(request));
    return absl::OkStatus();
  }));
  return generation;
}

std::string DescribeEngine(const v1::ServerInfo& info) {
  return absl::StrCat(info.isa(), "; ", info.kernel_path(), "; activations ",
                      info.activations(), "; KV cache ", info.kv_cache(), "; ",
                      info.threads(), " threads (", info.thread_reason(), ")",
                      info.degraded_size() > 0 ? "; degraded: " : "",
                      absl::StrJoin(info.degraded(), ", "));
}

absl::Status CheckArtifact(const v1::ServerInfo& info,
                           const std::string& endpoint,
                           const std::string& sha256) {
  if (sha256.empty() || info.artifact_sha256() == sha256) {
    return absl::OkStatus();
  }
  return common::MakeError(
      absl::StatusCode::kFailedPrecondition, "ARTIFACT_MISMATCH",
      absl::StrCat(endpoint, " serves ", info.artifact_sha256(), ", expected ",
                   sha256),
      {{"endpoint", endpoint},
       {"found", info.artifact_sha256()},
       {"expected", sha256}});
}

}  // namespace onegrid::evaluator
