#include "services/gateway/prompt_echo.h"

#include <cstddef>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "services/common/error_info.h"

namespace onegrid::gateway {
namespace {

absl::StatusOr<std::vector<int32_t>> IdsOf(
    Backend& backend, const std::variant<std::string, v1::TokenIds>& prompt,
    const TokenTexts& texts, absl::Time deadline) {
  if (const auto* text = std::get_if<std::string>(&prompt)) {
    return backend.Tokenize(*text, /*add_bos=*/true,
                            /*parse_control_tokens=*/false, deadline);
  }
  const auto& ids = std::get<v1::TokenIds>(prompt).ids();
  for (const int32_t id : ids) {
    if (id < texts.size()) continue;
    return common::MakeError(absl::StatusCode::kInvalidArgument,
                             "INVALID_REQUEST",
                             absl::StrCat("prompt has token id ", id,
                                          ", expected 0..", texts.size() - 1));
  }
  return std::vector<int32_t>(ids.begin(), ids.end());
}

bool IsWhole(const v1::ScoreTokensResponse& scores, size_t positions,
             size_t width) {
  const auto size = [](const auto& list) {
    return static_cast<size_t>(list.size());
  };
  return size(scores.logprobs()) == positions &&
         size(scores.top_ids()) == positions * width &&
         size(scores.top_logprobs()) == positions * width;
}

}  // namespace

absl::StatusOr<PromptEcho> EchoPrompt(
    Backend& backend, const CompletionRequest& request,
    const std::variant<std::string, v1::TokenIds>& prompt,
    const TokenTexts& texts, absl::Time deadline,
    const AbandonedFn& abandoned) {
  ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                   IdsOf(backend, prompt, texts, deadline));
  PromptEcho echo;
  echo.prompt_tokens = static_cast<int>(ids.size());
  const auto* text = std::get_if<std::string>(&prompt);
  echo.text = text != nullptr ? *text : texts.Decode(ids);
  if (!request.logprobs || ids.empty()) return echo;
  v1::ScoreTokensResponse scores;
  const auto width = static_cast<size_t>(request.top_logprobs);
  if (ids.size() > 1) {
    v1::ScoreTokensRequest call;
    call.mutable_token_ids()->Add(ids.begin(), ids.end());
    call.set_top_n(request.top_logprobs);
    call.set_adapter(request.adapter);
    call.set_priority(request.priority);
    call.set_caller(request.caller);
    call.set_cache_salt(request.cache_salt);
    ASSIGN_OR_RETURN(scores, backend.Score(call, deadline, abandoned));
    if (!IsWhole(scores, ids.size() - 1, width)) {
      return common::MakeError(absl::StatusCode::kInternal, "BACKEND_ANSWER",
                               "the inference server left out scores");
    }
  }
  TokenPlaces places(texts);
  echo.tokens.push_back(places.Next({ids[0], std::nullopt, {}, {}}));
  for (int i = 0; i < scores.logprobs_size(); ++i) {
    const size_t begin = static_cast<size_t>(i) * width;
    echo.tokens.push_back(places.Next(
        {ids[static_cast<size_t>(i) + 1], scores.logprobs(i),
         absl::MakeConstSpan(scores.top_ids()).subspan(begin, width),
         absl::MakeConstSpan(scores.top_logprobs()).subspan(begin, width)}));
  }
  return echo;
}

}  // namespace onegrid::gateway
