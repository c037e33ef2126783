#include "services/gateway/fake_backend.h"

#include <cstddef>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "proto/google/rpc/error_details.pb.h"
#include "services/common/error_info.h"
#include "services/common/grpc_status.h"

namespace onegrid::gateway {
namespace {

constexpr char kSha256[] = "0123456789abcdef";
constexpr char kAdapterSha256[] = "fedcba9876543210";
constexpr float kLogprob = -0.5f;

constexpr const char* kControlTokens[] = {
    "<start_of_turn>",  "<end_of_turn>", "<|turn>",      "<turn|>",
    "<|think|>",        "<|channel>",    "<channel|>",   "<|tool>",
    "<tool|>",          "<|tool_call>",  "<tool_call|>", "<|tool_response>",
    "<tool_response|>", "<|\"|>"};

std::string TextOf(const google::protobuf::RepeatedField<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) {
    if (id == FakeBackend::kBos) text += "<bos>";
    if (id >= FakeBackend::kFirstControl) {
      std::string name = kControlTokens[id - FakeBackend::kFirstControl];
      name.front() = '[';
      name.back() = ']';
      text += name;
    } else if (id >= FakeBackend::kFirstByte) {
      text += static_cast<char>(id - FakeBackend::kFirstByte);
    }
  }
  return text;
}

// The error that a prompt asks for; OK if none.
grpc::Status ErrorOf(const std::string& prompt) {
  using absl::StatusCode;
  if (absl::StrContains(prompt, "queue full")) {
    const grpc::Status status = common::ToGrpc(common::MakeError(
        StatusCode::kResourceExhausted, "QUEUE_FULL", "the queue is full"));
    google::rpc::Status details;
    details.ParseFromString(status.error_details());
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(7);
    details.add_details()->PackFrom(retry);
    return {status.error_code(), status.error_message(),
            details.SerializeAsString()};
  }
  if (absl::StrContains(prompt, "draining")) {
    return common::ToGrpc(common::MakeError(
        StatusCode::kUnavailable, "SERVER_DRAINING", "the server drains"));
  }
  if (absl::StrContains(prompt, "too long")) {
    return common::ToGrpc(common::MakeError(StatusCode::kInvalidArgument,
                                            "CONTEXT_TOO_LONG",
                                            "9 tokens do not fit 8"));
  }
  if (absl::StrContains(prompt, "crash")) {
    return {grpc::StatusCode::DATA_LOSS, "secret detail"};
  }
  return grpc::Status::OK;
}

// Characters of UTF-8, each in a string.
std::vector<std::string> Characters(const std::string& text) {
  std::vector<std::string> characters;
  for (const char byte : text) {
    if ((byte & 0xC0) != 0x80) characters.emplace_back();
    if (!characters.empty()) characters.back() += byte;
  }
  return characters;
}

struct Piece {
  std::string text;
  int32_t id;
};

// A token for each character and, where marks are control tokens, for each
// mark.
std::vector<Piece> PiecesOf(absl::string_view text, bool has_marks) {
  std::vector<Piece> pieces;
  while (!text.empty()) {
    Piece piece = {Characters(std::string(text)).front(),
                   FakeBackend::kFirstByte};
    for (size_t i = 0; has_marks && i < std::size(kControlTokens); ++i) {
      if (!absl::StartsWith(text, kControlTokens[i])) continue;
      piece = {kControlTokens[i],
               FakeBackend::kFirstControl + static_cast<int32_t>(i)};
    }
    text.remove_prefix(piece.text.size());
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

// What to answer to a prompt.
std::vector<Piece> AnswerTo(const std::string& prompt) {
  for (const std::string order : {"say:", "spell:"}) {
    const size_t begin = prompt.find(order);
    if (begin == std::string::npos) continue;
    const size_t end = prompt.find("[turn|]", begin);
    return PiecesOf(
        prompt.substr(begin + order.size(), end - begin - order.size()),
        order == "say:");
  }
  return PiecesOf(prompt, false);
}

// Cuts `text` before the first stop string that ends in it, if any does.
bool CutAtStop(const v1::Stopping& stopping, std::string* text) {
  for (const std::string& stop : stopping.stop()) {
    const size_t position = text->find(stop);
    if (position == std::string::npos) continue;
    text->resize(position);
    return true;
  }
  return false;
}

}  // namespace

std::vector<v1::GenerateRequest> FakeBackend::requests() const {
  absl::MutexLock lock(&mu_);
  return requests_;
}

grpc::Status FakeBackend::Linger(
    grpc::ServerContext* context, bool writes,
    grpc::ServerWriter<v1::GenerateResponse>* writer) {
  v1::GenerateResponse response;
  response.mutable_delta()->set_text("x");
  response.mutable_delta()->add_token_ids(kFirstByte + 'x');
  ++running_;
  while (!context->IsCancelled()) {
    if (writes) writer->Write(response);
    absl::SleepFor(absl::Milliseconds(10));
  }
  --running_;
  ++cancelled_;
  return grpc::Status::CANCELLED;
}

grpc::Status FakeBackend::Generate(
    grpc::ServerContext* context, const v1::GenerateRequest* request,
    grpc::ServerWriter<v1::GenerateResponse>* writer) {
  {
    absl::MutexLock lock(&mu_);
    requests_.push_back(*request);
  }
  const std::string prompt = request->has_text()
                                 ? "<bos>" + request->text()
                                 : TextOf(request->token_ids().ids());
  if (grpc::Status error = ErrorOf(prompt); !error.ok()) return error;
  const int prompt_tokens = static_cast<int>(Characters(prompt).size());
  v1::GenerateResponse response;
  response.mutable_started()->set_artifact_sha256(kSha256);
  response.mutable_started()->set_prompt_tokens(prompt_tokens);
  if (!request->adapter().empty()) {
    response.mutable_started()->set_adapter_sha256(kAdapterSha256);
  }
  writer->Write(response);
  const bool writes = absl::StrContains(prompt, "forever");
  if (writes || absl::StrContains(prompt, "silent")) {
    return Linger(context, writes, writer);
  }
  std::string sent, text;
  v1::Finished finished;
  finished.set_reason(v1::END_OF_SEQUENCE);
  for (const Piece& piece : AnswerTo(prompt)) {
    if (sent.size() > 2 && absl::StrContains(prompt, "break off")) {
      return {grpc::StatusCode::INTERNAL, "secret detail"};
    }
    text += piece.text;
    const bool stopped = CutAtStop(request->stopping(), &text);
    v1::Delta& delta = *response.mutable_delta();
    delta.Clear();
    // What a stop string has cut off had been sent by a plain server.
    if (text.size() > sent.size()) delta.set_text(text.substr(sent.size()));
    delta.add_token_ids(piece.id);
    if (request->logprobs()) delta.add_logprobs(kLogprob);
    writer->Write(response);
    sent = text;
    finished.set_completion_tokens(finished.completion_tokens() + 1);
    if (stopped) finished.set_reason(v1::STOP_STRING);
    if (stopped) break;
    if (finished.completion_tokens() >= request->stopping().max_tokens()) {
      finished.set_reason(v1::MAX_TOKENS);
      break;
    }
  }
  finished.set_prompt_tokens(prompt_tokens);
  *response.mutable_finished() = finished;
  writer->Write(response);
  return grpc::Status::OK;
}

grpc::Status FakeBackend::Tokenize(grpc::ServerContext*,
                                   const v1::TokenizeRequest* request,
                                   v1::TokenizeResponse* response) {
  if (request->add_bos()) response->add_token_ids(kBos);
  if (request->parse_control_tokens() && has_control_tokens_) {
    for (size_t i = 0; i < std::size(kControlTokens); ++i) {
      if (request->text() != kControlTokens[i]) continue;
      response->add_token_ids(kFirstControl + static_cast<int32_t>(i));
      return grpc::Status::OK;
    }
  }
  for (const unsigned char byte : request->text()) {
    response->add_token_ids(byte + kFirstByte);
  }
  return grpc::Status::OK;
}

grpc::Status FakeBackend::ListAdapters(grpc::ServerContext*,
                                       const v1::ListAdaptersRequest*,
                                       v1::ListAdaptersResponse* response) {
  response->add_adapters()->set_name("tuned");
  return grpc::Status::OK;
}

grpc::Status FakeBackend::GetServerInfo(grpc::ServerContext*,
                                        const v1::GetServerInfoRequest*,
                                        v1::ServerInfo* info) {
  info->set_artifact_sha256(kSha256);
  info->set_chat_format(chat_format_);
  if (chat_format_.empty()) info->set_chat_template_sha256(kSha256);
  return grpc::Status::OK;
}

grpc::Status FakeBackend::GetLoad(grpc::ServerContext*,
                                  const v1::GetLoadRequest*, v1::Load* load) {
  load->set_running(running_);
  load->set_queued(5);
  load->set_kv_bytes(750);
  load->set_prefix_cache_bytes(250);
  load->set_kv_bytes_limit(1000);
  load->set_preemptions(3);
  load->set_prefix_tokens_asked(70);
  load->set_prefix_tokens_restored(40);
  load->set_guesses_tried(9);
  load->set_guesses_accepted(6);
  return grpc::Status::OK;
}

}  // namespace onegrid::gateway
