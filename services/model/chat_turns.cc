#include "services/model/chat_turns.h"

#include <cstddef>

#include "services/model/utf8.h"

namespace onegrid::model {

std::string CalledTool(absl::Span<const Turn> turns, absl::string_view id) {
  while (!turns.empty() && turns.back().role == Role::kTool) {
    turns.remove_suffix(1);
  }
  std::string name;
  if (turns.empty()) return name;
  for (const ToolCall& call : turns.back().calls) {
    if (call.id == id) name = call.name;
  }
  return name;
}

// The words hold nothing of the record, so that equal problems of a file can
// be counted.
std::string RenderProblem(absl::Span<const Turn> turns) {
  if (turns.empty()) return "the conversation has no turns";
  if (turns.front().role == Role::kSystem) turns.remove_prefix(1);
  if (turns.empty()) return "the conversation is a system turn only";
  for (size_t i = 0; i < turns.size(); ++i) {
    const Role role = turns[i].role;
    if (role == Role::kSystem) return "a system turn is not the first turn";
    if (i == 0 && role == Role::kAssistant) {
      return "the first turn is the assistant's, not the user's";
    }
    const bool called = i > 0 && !turns[i - 1].calls.empty();
    const bool answered = i > 0 && turns[i - 1].role == Role::kTool;
    if (role == Role::kTool) {
      if (called || answered) continue;
      return "a tool turn does not follow an assistant turn with tool calls";
    }
    if (called) return "an assistant turn with tool calls has no tool turn";
    if (i == 0 || answered || role != turns[i - 1].role) continue;
    return role == Role::kUser ? "two user turns follow each other"
                               : "two assistant turns follow each other";
  }
  return turns.back().calls.empty()
             ? ""
             : "an assistant turn with tool calls has no tool turn";
}

std::string LearnProblem(absl::Span<const Turn> turns) {
  if (std::string problem = RenderProblem(turns); !problem.empty()) {
    return problem;
  }
  if (turns.back().role != Role::kAssistant) {
    return "the last turn is the user's: it has no answer";
  }
  bool any = false;
  for (const Turn& turn : turns) {
    if (turn.role != Role::kAssistant || !turn.learn) continue;
    if (StripUnicodeSpace(turn.text).empty()) {
      return "an assistant turn is blank";
    }
    any = true;
  }
  return any ? "" : "no assistant turn is to be learned";
}

}  // namespace onegrid::model
