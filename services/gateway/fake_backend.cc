#include "services/gateway/fake_backend.h"

#include <algorithm>
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

// Characters that are a token.
constexpr const char* kCharacters[] = {"\u00e9", "\u20ac", "\U0001f600"};
constexpr int32_t kOtherCharacter = 399;
constexpr int32_t kFirstCharacter = 400;
constexpr int32_t kVocabularySize = kFirstCharacter + std::size(kCharacters);

int32_t IdOf(const std::string& character) {
  if (character.size() == 1) {
    return FakeBackend::kFirstByte + static_cast<unsigned char>(character[0]);
  }
  for (size_t i = 0; i < std::size(kCharacters); ++i) {
    if (character == kCharacters[i]) {
      return kFirstCharacter + static_cast<int32_t>(i);
    }
  }
  return kOtherCharacter;
}

std::string TokenTextOf(int32_t id) {
  if (id == FakeBackend::kBos) return "<bos>";
  if (id >= kFirstCharacter) return kCharacters[id - kFirstCharacter];
  const int32_t mark = id - FakeBackend::kFirstControl;
  if (mark >= 0 && mark < static_cast<int32_t>(std::size(kControlTokens))) {
    return kControlTokens[mark];
  }
  const int32_t byte = id - FakeBackend::kFirstByte;
  if (byte >= 0 && byte < 256) return {static_cast<char>(byte)};
  return "?";
}

std::string TextOf(const google::protobuf::RepeatedField<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) {
    if (id == FakeBackend::kBos) text += "<bos>";
    const size_t mark = static_cast<size_t>(id - FakeBackend::kFirstControl);
    if (id >= FakeBackend::kFirstControl && mark < std::size(kControlTokens)) {
      std::string name = kControlTokens[mark];
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
    const std::string character = Characters(std::string(text)).front();
    Piece piece = {character, IdOf(character)};
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

// A token for each byte, with the text that it completes.
std::vector<Piece> BytesOf(const std::string& text) {
  std::vector<Piece> pieces;
  for (const std::string& character : Characters(text)) {
    for (const char byte : character) pieces.push_back({"", IdOf({byte})});
    pieces.back().text = character;
  }
  return pieces;
}

// What to answer to a prompt.
std::vector<Piece> AnswerTo(const std::string& prompt) {
  for (const std::string order : {"say:", "spell:", "bytes:"}) {
    const size_t begin = prompt.find(order);
    if (begin == std::string::npos) continue;
    const size_t end = std::min(prompt.find("[turn|]", begin),
                                prompt.find("[end_of_turn]", begin));
    const std::string text =
        prompt.substr(begin + order.size(), end - begin - order.size());
    return order == "bytes:" ? BytesOf(text) : PiecesOf(text, order == "say:");
  }
  return PiecesOf(prompt, false);
}

// `pieces` as a bias of 100 or -100 has them.
std::vector<Piece> Biased(const v1::Sampling& sampling,
                          const std::vector<Piece>& pieces) {
  std::vector<Piece> kept;
  for (Piece piece : pieces) {
    for (const auto& [id, bias] : sampling.logit_bias()) {
      if (bias == 100) piece = {TokenTextOf(id), id};
    }
    const auto bias = sampling.logit_bias().find(piece.id);
    if (bias == sampling.logit_bias().end() || bias->second != -100) {
      kept.push_back(piece);
    }
  }
  return kept;
}

// The most likely tokens in the place of `id`, which is the first of them
// unless `unlikely`.
template <typename Message>
void AddTop(int32_t id, int count, bool unlikely, Message* message) {
  for (int i = 0; i < count; ++i) {
    message->add_top_ids(id + i + (unlikely ? 1 : 0));
    message->add_top_logprobs(unlikely ? -0.25f * static_cast<float>(i + 1)
                                       : kLogprob - static_cast<float>(i));
  }
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

std::vector<v1::ScoreTokensRequest> FakeBackend::score_requests() const {
  absl::MutexLock lock(&mu_);
  return score_requests_;
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
  for (const Piece& piece : Biased(request->sampling(), AnswerTo(prompt))) {
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
    AddTop(piece.id, request->top_logprobs(),
           absl::StrContains(prompt, "unlikely"), &delta);
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

grpc::Status FakeBackend::ScoreTokens(grpc::ServerContext* context,
                                      const v1::ScoreTokensRequest* request,
                                      v1::ScoreTokensResponse* response) {
  {
    absl::MutexLock lock(&mu_);
    score_requests_.push_back(*request);
  }
  const std::string prompt = TextOf(request->token_ids());
  if (grpc::Status error = ErrorOf(prompt); !error.ok()) return error;
  if (absl::StrContains(prompt, "silent")) {
    return Linger(context, /*writes=*/false, nullptr);
  }
  for (int i = 1; i < request->token_ids_size(); ++i) {
    response->add_logprobs(kLogprob);
    AddTop(request->token_ids(i), request->top_n(),
           absl::StrContains(prompt, "unlikely"), response);
  }
  return grpc::Status::OK;
}

grpc::Status FakeVocabulary::GetVocabulary(grpc::ServerContext*,
                                           const v1::GetVocabularyRequest*,
                                           v1::Vocabulary* response) {
  ++calls_;
  response->set_artifact_sha256(kSha256);
  for (int32_t id = 0; id < kVocabularySize; ++id) {
    response->add_texts(TokenTextOf(id));
  }
  response->add_control_ids(FakeBackend::kBos);
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
