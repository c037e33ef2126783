// What an answer with `echo` begins with: its prompt.
#ifndef SERVICES_GATEWAY_PROMPT_ECHO_H_
#define SERVICES_GATEWAY_PROMPT_ECHO_H_

#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/onegrid/v1/generation.pb.h"
#include "services/gateway/backend.h"
#include "services/gateway/openai_request.h"
#include "services/gateway/openai_response.h"
#include "services/gateway/token_texts.h"

namespace onegrid::gateway {

struct PromptEcho {
  // As it was given; of ids, their text without control tokens.
  std::string text;
  int prompt_tokens = 0;
  // With logprobs: all of the prompt, the BOS that the backend puts in front of
  // a text, too. The first has no log-probability, for nothing is before it.
  std::vector<GeneratedToken> tokens;
};

// `prompt` is one of request.prompts. With logprobs the backend scores it,
// which takes as long as reading it. InvalidArgument (INVALID_REQUEST): an id
// outside the vocabulary. Cancelled once abandoned() is true. Errors of
// Backend::Tokenize and Score.
absl::StatusOr<PromptEcho> EchoPrompt(
    Backend& backend, const CompletionRequest& request,
    const std::variant<std::string, v1::TokenIds>& prompt,
    const TokenTexts& texts, absl::Time deadline, const AbandonedFn& abandoned);

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_PROMPT_ECHO_H_
