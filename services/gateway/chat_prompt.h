// A conversation as the token ids that the served model was trained on.
#ifndef SERVICES_GATEWAY_CHAT_PROMPT_H_
#define SERVICES_GATEWAY_CHAT_PROMPT_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/gateway/backend.h"
#include "services/gateway/openai_request.h"
#include "services/model/chat_format.h"

namespace onegrid::gateway {

struct ChatTokens {
  std::vector<int32_t> ids;
  model::ChatFormat format = model::ChatFormat::kGemma3;
  // The ids of chat_answer.h's marks, if the answer may have thoughts, or
  // calls.
  std::optional<int32_t> thought_start = std::nullopt;
  std::optional<int32_t> call_start = std::nullopt;
};

// The ids of services/model/chat_pieces.h in the format that the backend names,
// tokenized by it, with the opening of the answer. Text that spells a control
// token stays text, so that no message can end its turn. FailedPrecondition
// (UNKNOWN_CHAT_TEMPLATE): the backend names no format, or one that is not
// known here; (NO_CHAT_TOKENS): the served model has no turns. InvalidArgument
// (THINKING_NOT_SUPPORTED, TOOLS_NOT_SUPPORTED): the format has no thoughts, or
// no tools, as Gemma 3's has neither; (CONTEXT_TOO_LONG): more tokens than the
// backend takes. Cancelled once abandoned() is true. Errors of Backend::Info
// and Tokenize. Costs one call of the backend for each different piece, and one
// for the format.
absl::StatusOr<ChatTokens> ChatPrompt(Backend& backend,
                                      const CompletionRequest& request,
                                      absl::Time deadline,
                                      const AbandonedFn& abandoned);

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_CHAT_PROMPT_H_
