// The messages and tools of a body of POST /v1/chat/completions.
#ifndef SERVICES_GATEWAY_OPENAI_MESSAGES_H_
#define SERVICES_GATEWAY_OPENAI_MESSAGES_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/gateway/json_fields.h"
#include "services/model/chat_turns.h"

namespace onegrid::gateway {

// Reads `messages`. Errors that name the message: a wrong type, a role or a
// kind of part that is not supported, calls that are not functions or whose
// arguments are not the text of a JSON object, a result of no call; of the
// whole: what model::RenderProblem says, and a last message that nobody is to
// answer.
void ReadMessages(JsonFields& fields, std::vector<model::Turn>* turns);

// Reads `tools` as the texts of their functions; none with tool_choice "none".
// `body`: the text of the fields, in which the order of equal keys is kept.
// Errors that name the tool: not a function, or what
// model::DeclarationProblem says.
void ReadTools(JsonFields& fields, absl::string_view body,
               std::vector<std::string>* tools);

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_OPENAI_MESSAGES_H_
