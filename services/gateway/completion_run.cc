#include "services/gateway/completion_run.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
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
  if (request_.logprobs || request_.echo) {
    ASSIGN_OR_RETURN(texts_, backend_.Tokens(options_.deadline));
  }
  if (request_.echo) RETURN_IF_ERROR(EchoPrompts());
  if (request_.stopping.max_tokens() == 0) return absl::OkStatus();
  v1::GenerateRequest call;
  *call.mutable_sampling() = request_.sampling;
  *call.mutable_stopping() = request_.stopping;
  call.set_logprobs(request_.logprobs || options_.measure);
  call.set_adapter(request_.adapter);
  call.set_top_logprobs(request_.top_logprobs);
  call.set_priority(request_.priority);
  call.set_caller(request_.caller);
  call.set_cache_salt(request_.cache_salt);
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

absl::Status CompletionRun::EchoPrompts() {
  for (const auto& prompt : request_.prompts) {
    ASSIGN_OR_RETURN(PromptEcho echo,
                     EchoPrompt(backend_, request_, prompt, *texts_,
                                options_.deadline, Abandoned()));
    // Else the backend counts them.
    if (request_.stopping.max_tokens() == 0) {
      usage_.prompt_tokens += echo.prompt_tokens;
    }
    echoes_.push_back(std::move(echo));
  }
  head_.fingerprint = texts_->artifact_sha256().substr(0, kFingerprintDigits);
  return absl::OkStatus();
}

size_t CompletionRun::ChoiceCount() const {
  return calls_.empty() ? echoes_.size() * static_cast<size_t>(request_.n)
                        : calls_.size();
}

Choice CompletionRun::NewChoice() {
  Choice choice;
  choice.index = static_cast<int>(current_);
  if (request_.logprobs) places_.emplace(*texts_);
  if (echoes_.empty()) return choice;
  const PromptEcho& echo = echoes_[current_ / static_cast<size_t>(request_.n)];
  choice.text = echo.text;
  choice.tokens = echo.tokens;
  if (request_.logprobs) {
    places_.emplace(*texts_, CharacterCount(echo.text));
  }
  return choice;
}

void CompletionRun::GoOn() {
  ++current_;
  opened_ = false;
}

absl::Status CompletionRun::Start() {
  status_ = BeginCalls();
  v1::GenerateResponse response;
  if (status_.ok() && !calls_.empty() && Read(&response) &&
      !response.has_started()) {
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
    const v1::Started& started = response->started();
    head_.fingerprint = started.artifact_sha256().substr(0, kFingerprintDigits);
    if (!started.adapter_sha256().empty()) {
      absl::StrAppend(&head_.fingerprint, "-",
                      started.adapter_sha256().substr(0, kFingerprintDigits));
    }
    // The answers to one prompt share it.
    if (current_ % static_cast<size_t>(request_.n) == 0) {
      usage_.prompt_tokens += response->started().prompt_tokens();
      usage_.cached_tokens += response->started().cached_tokens();
    }
  }
  const int tokens = response->delta().token_ids_size();
  usage_.completion_tokens += tokens;
  for (const float logprob : response->delta().logprobs()) {
    confidence_.Add(logprob);
  }
  if (tokens > 0 && current_ == 0) options_.on_tokens();
  if (response->has_finished()) options_.on_finished(response->finished());
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
  if (request_.logprobs) TakeTokens(delta, choice);
}

void CompletionRun::TakeTokens(const v1::Delta& delta, Choice* choice) {
  const auto width = static_cast<size_t>(request_.top_logprobs);
  const auto ids = absl::MakeConstSpan(delta.top_ids());
  const auto logprobs = absl::MakeConstSpan(delta.top_logprobs());
  for (int i = 0; i < delta.token_ids_size(); ++i) {
    // A backend that says less than it was asked for ends nothing.
    const size_t begin = static_cast<size_t>(i) * width;
    const bool has_top = begin + width <= std::min(ids.size(), logprobs.size());
    const size_t count = has_top ? width : 0;
    choice->tokens.push_back(places_->Next(
        {delta.token_ids(i), i < delta.logprobs_size() ? delta.logprobs(i) : 0,
         ids.subspan(has_top ? begin : 0, count),
         logprobs.subspan(has_top ? begin : 0, count)}));
  }
}

void CompletionRun::End(const v1::Finished& finished, Choice* choice) {
  if (answer_.has_value()) AddPart(answer_->Finish(), choice);
  choice->finish_reason = FinishReasonName(finished.reason(), calls_said_ > 0);
  answer_.reset();
  calls_said_ = 0;
}

absl::StatusOr<std::string> CompletionRun::Whole() {
  std::vector<Choice> choices;
  for (; current_ < ChoiceCount(); GoOn()) {
    choices.push_back(NewChoice());
    v1::GenerateResponse response;
    if (calls_.empty()) response.mutable_finished()->set_reason(v1::MAX_TOKENS);
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
  if (!opened_) {
    opened_ = true;
    const Choice opening = NewChoice();
    if (request_.chat || request_.echo) {
      *part = Event(opening, /*opens=*/true);
      return true;
    }
  }
  Choice choice;
  choice.index = static_cast<int>(current_);
  v1::GenerateResponse response;
  if (calls_.empty()) response.mutable_finished()->set_reason(v1::MAX_TOKENS);
  while (response.has_finished() || Read(&response)) {
    if (response.has_finished()) {
      End(response.finished(), &choice);
      *part = Event(choice, /*opens=*/false);
      GoOn();
      return true;
    }
    Take(response.delta(), &choice);
    if (choice.text.empty() && choice.reasoning.empty() &&
        choice.calls.empty() && choice.tokens.empty()) {
      continue;
    }
    *part = Event(choice, /*opens=*/false);
    return true;
  }
  return false;
}

bool CompletionRun::NextPart(std::string* part) {
  if (ended_) return false;
  if (current_ < ChoiceCount()) {
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
