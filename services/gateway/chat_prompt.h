// A conversation as the token ids that the served model was trained on.
#ifndef SERVICES_GATEWAY_CHAT_PROMPT_H_
#define SERVICES_GATEWAY_CHAT_PROMPT_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "services/gateway/backend.h"
#include "services/model/chat_turns.h"

namespace onegrid::gateway {

// The ids of services/model/chat_pieces.h in the format that the backend names,
// tokenized by it, with the opening of the answer. Text that spells a control
// token stays text, so that no message can end its turn. RenderProblem(turns)
// must be "". FailedPrecondition (UNKNOWN_CHAT_TEMPLATE): the backend names no
// format, or one that is not known here; (NO_CHAT_TOKENS): the served model has
// no turns. InvalidArgument (THINKING_NOT_SUPPORTED): thinking is asked of
// Gemma 3. Errors of Backend::Info and Tokenize. Costs one call of the backend
// for each different piece, and one for the format.
absl::StatusOr<std::vector<int32_t>> ChatPrompt(
    Backend& backend, absl::Span<const model::Turn> turns, bool enable_thinking,
    absl::Time deadline);

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_CHAT_PROMPT_H_
