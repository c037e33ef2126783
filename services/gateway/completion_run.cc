#include "services/gateway/completion_run.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/gateway/openai_error.h"

namespace onegrid::gateway {
namespace {

constexpr size_t kFingerprintDigits = 12;

absl::Status BrokenProtocol(absl::string_view what) {
  return common::MakeError(absl::StatusCode::kInternal, "BACKEND_ANSWER",
                           absl::StrCat("the inference server ", what));
}

// How often the delta has a token.
size_t CountOf(const std::optional<int32_t>& token, const v1::Delta& delta) {
  if (!token.has_value()) return 0;
  return static_cast<size_t>(
      std::count(delta.token_ids().begin(), delta.token_ids().end(), *token));
}

}  // namespace

CompletionRun::CompletionRun(CompletionRequest request, Backend& backend,
                             Options options)
    : request_(std::move(request)),
      backend_(backend),
      options_(std::move(options)) {
  head_.chat = request_.chat;
  head_.id = options_.id;
  head_.created_seconds = options_.created_seconds;
  head_.model = request_.model;
  head_.logprobs = request_.logprobs;
  head_.top_logprobs = request_.top_logprobs;
}

absl::Status CompletionRun::BeginCalls() {
  std::vector<std::variant<std::string, v1::TokenIds>> prompts =
      request_.prompts;
  if (request_.chat) {
    ASSIGN_OR_RETURN(
        chat_, ChatPrompt(backend_, request_, options_.deadline, Abandoned()));
    v1::TokenIds tokens;
    tokens.mutable_ids()->Add(chat_.ids.begin(), chat_.ids.end());
    prompts.emplace_back(std::move(tokens));
  }
  v1::GenerateRequest call;
  *call.mutable_sampling() = request_.sampling;
  *call.mutable_stopping() = request_.stopping;
  call.set_logprobs(request_.logprobs);
  if (request_.structure) *call.mutable_structure() = *request_.structure;
  const uint64_t seed = request_.seed.value_or(options_.seed);
  for (const auto& prompt : prompts) {
    if (const auto* text = std::get_if<std::string>(&prompt)) {
      call.set_text(*text);
    } else {
      *call.mutable_token_ids() = std::get<v1::TokenIds>(prompt);
    }
    for (int i = 0; i < request_.n; ++i) {
      call.mutable_sampling()->set_seed(seed + static_cast<uint64_t>(i));
      calls_.push_back(backend_.Generate(call, options_.deadline));
    }
  }
  return absl::OkStatus();
}

absl::Status CompletionRun::Start() {
  status_ = BeginCalls();
  v1::GenerateResponse response;
  if (status_.ok() && Read(&response) && !response.has_started()) {
    status_ = BrokenProtocol("did not say that it started");
  }
  return status_;
}

AbandonedFn CompletionRun::Abandoned() const {
  return [this] { return options_.client_gone() || options_.stopping(); };
}

bool CompletionRun::Read(v1::GenerateResponse* response) {
  GenerateCall& call = *calls_[current_];
  if (!call.Next(response, Abandoned())) {
    status_ = call.status();
    if (status_.ok()) {
      status_ = BrokenProtocol("ended without a last message");
    } else if (absl::IsCancelled(status_) && options_.stopping()) {
      status_ =
          common::MakeError(absl::StatusCode::kUnavailable, "SERVER_DRAINING",
                            "the gateway is shutting down");
    }
    return false;
  }
  if (response->has_started()) {
    head_.fingerprint =
        response->started().artifact_sha256().substr(0, kFingerprintDigits);
    // The answers to one prompt share it.
    if (current_ % static_cast<size_t>(request_.n) == 0) {
      usage_.prompt_tokens += response->started().prompt_tokens();
      usage_.cached_tokens += response->started().cached_tokens();
    }
  }
  const int tokens = response->delta().token_ids_size();
  usage_.completion_tokens += tokens;
  if (tokens > 0 && !first_token_seen_) {
    first_token_seen_ = true;
    options_.on_first_token();
  }
  return true;
}

void CompletionRun::AddPart(AnswerPart part, Choice* choice) {
  if (choice->calls.empty()) choice->calls_before = calls_said_;
  choice->text += part.text;
  choice->reasoning += part.reasoning;
  for (AnsweredCall& call : part.calls) {
    choice->calls.push_back(
        {absl::StrCat("call_", head_.id, "_", current_, "_", calls_said_),
         std::move(call.name), std::move(call.arguments)});
    ++calls_said_;
  }
}

void CompletionRun::Take(const v1::Delta& delta, Choice* choice) {
  if (request_.chat) {
    if (!answer_.has_value()) answer_.emplace();
    answer_->Expect(CountOf(chat_.thought_start, delta),
                    CountOf(chat_.call_start, delta));
    AddPart(answer_->Append(delta.text()), choice);
  } else {
    choice->text += delta.text();
  }
  if (!request_.logprobs) return;
  const int tokens = delta.token_ids_size();
  for (int i = 0; i < tokens; ++i) {
    choice->tokens.push_back(
        {"", i < delta.logprobs_size() ? delta.logprobs(i) : 0});
  }
  // The text belongs to the token that completed it; text without a token is
  // what was held back for a stop string that did not come.
  if (!choice->tokens.empty()) choice->tokens.back().text += delta.text();
}

void CompletionRun::End(const v1::Finished& finished, Choice* choice) {
  if (answer_.has_value()) AddPart(answer_->Finish(), choice);
  choice->finish_reason = FinishReasonName(finished.reason(), calls_said_ > 0);
  answer_.reset();
  calls_said_ = 0;
}

absl::StatusOr<std::string> CompletionRun::Whole() {
  std::vector<Choice> choices;
  for (; current_ < calls_.size(); ++current_) {
    choices.emplace_back();
    choices.back().index = static_cast<int>(current_);
    v1::GenerateResponse response;
    while (!response.has_finished()) {
      if (!Read(&response)) return status_;
      Take(response.delta(), &choices.back());
    }
    End(response.finished(), &choices.back());
  }
  return ResponseJson(head_, choices, usage_);
}

std::string CompletionRun::Event(const Choice& choice, bool opens) const {
  return SseEvent(ChunkJson(head_, choice, opens, request_.include_usage));
}

bool CompletionRun::NextOfChoice(std::string* part) {
  Choice choice;
  choice.index = static_cast<int>(current_);
  choice.text_offset = characters_;
  if (request_.chat && !opened_) {
    opened_ = true;
    *part = Event(choice, /*opens=*/true);
    return true;
  }
  v1::GenerateResponse response;
  while (Read(&response)) {
    if (response.has_finished()) {
      End(response.finished(), &choice);
      *part = Event(choice, /*opens=*/false);
      ++current_;
      opened_ = false;
      characters_ = 0;
      return true;
    }
    Take(response.delta(), &choice);
    if (choice.text.empty() && choice.reasoning.empty() &&
        choice.calls.empty() && choice.tokens.empty()) {
      continue;
    }
    characters_ += CharacterCount(choice.text);
    *part = Event(choice, /*opens=*/false);
    return true;
  }
  return false;
}

bool CompletionRun::NextPart(std::string* part) {
  if (ended_) return false;
  if (current_ < calls_.size()) {
    if (NextOfChoice(part)) return true;
    ended_ = true;
    *part = SseEvent(ErrorJson(FromStatus(status_)));
    return true;
  }
  if (request_.include_usage && !usage_sent_) {
    usage_sent_ = true;
    *part = SseEvent(UsageChunkJson(head_, usage_));
    return true;
  }
  ended_ = true;
  *part = SseEvent("[DONE]");
  return true;
}

}  // namespace onegrid::gateway
