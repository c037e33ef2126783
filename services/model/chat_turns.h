// A conversation as data: who said what, whatever format it was read from.
#ifndef SERVICES_MODEL_CHAT_TURNS_H_
#define SERVICES_MODEL_CHAT_TURNS_H_

#include <string>

#include "absl/types/span.h"

namespace onegrid::model {

enum class Role { kSystem, kUser, kAssistant };

struct Turn {
  Role role = Role::kUser;
  std::string text;
  // For an assistant turn: whether it may be learned. False for those that are
  // part of a prompt.
  bool learn = true;
};

// What keeps a conversation from being rendered by a chat template, in words;
// "" if nothing does. The templates want an optional system turn, then user
// and assistant in turn, a user first.
std::string RenderProblem(absl::Span<const Turn> turns);

// What keeps a conversation from being learned; "" if nothing does: what
// RenderProblem says, a last turn that is not the assistant's, an assistant
// turn to be learned that is blank, or none to be learned.
std::string LearnProblem(absl::Span<const Turn> turns);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_CHAT_TURNS_H_
