// A conversation as data: who said what, whatever format it was read from.
#ifndef SERVICES_MODEL_CHAT_TURNS_H_
#define SERVICES_MODEL_CHAT_TURNS_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace onegrid::model {

// kTool: what a tool that an assistant turn called has answered.
enum class Role { kSystem, kUser, kAssistant, kTool };

struct ToolCall {
  std::string id;  // of this call, for its results
  std::string name;
  std::string arguments = "{}";  // a JSON object
};

struct Turn {
  Role role = Role::kUser;
  std::string text;
  // For an assistant turn: whether it may be learned. False for those that are
  // part of a prompt.
  bool learn = true;
  // Of an assistant turn: what it thought before its calls, and the calls.
  std::string reasoning = {};
  std::vector<ToolCall> calls = {};
  // Of a tool turn: the name of the tool.
  std::string tool_name = {};
};

// The name of the tool that a result is of, by the id of the call: the last of
// those of the last assistant turn; "" if none has it. `turns`: before the
// result.
std::string CalledTool(absl::Span<const Turn> turns, absl::string_view id);

// What keeps a conversation from being rendered by a chat template, in words;
// "" if nothing does. The templates want an optional system turn, then user
// and assistant in turn, a user first; behind an assistant turn with calls the
// turns of the tools, and then any.
std::string RenderProblem(absl::Span<const Turn> turns);

// What keeps a conversation from being learned; "" if nothing does: what
// RenderProblem says, a last turn that is not the assistant's, an assistant
// turn to be learned that is blank, or none to be learned.
std::string LearnProblem(absl::Span<const Turn> turns);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_CHAT_TURNS_H_
