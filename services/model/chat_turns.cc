#include "services/model/chat_turns.h"

#include <cstddef>

#include "services/model/utf8.h"

namespace onegrid::model {

// The words hold nothing of the record, so that equal problems of a file can
// be counted.
std::string RenderProblem(absl::Span<const Turn> turns) {
  if (turns.empty()) return "the conversation has no turns";
  if (turns.front().role == Role::kSystem) turns.remove_prefix(1);
  if (turns.empty()) return "the conversation is a system turn only";
  for (size_t i = 0; i < turns.size(); ++i) {
    const Role expected = i % 2 == 0 ? Role::kUser : Role::kAssistant;
    if (turns[i].role == expected) continue;
    if (turns[i].role == Role::kSystem) {
      return "a system turn is not the first turn";
    }
    if (i == 0) return "the first turn is the assistant's, not the user's";
    return turns[i].role == Role::kUser ? "two user turns follow each other"
                                        : "two assistant turns follow each "
                                          "other";
  }
  return "";
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
