// What a model says in an answer of a chat, apart: text, thoughts and calls of
// tools.
#ifndef SERVICES_GATEWAY_CHAT_ANSWER_H_
#define SERVICES_GATEWAY_CHAT_ANSWER_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace onegrid::gateway {

struct AnsweredCall {
  std::string name;
  std::string arguments;  // a JSON object
};

struct AnswerPart {
  std::string text;
  std::string reasoning;
  std::vector<AnsweredCall> calls;
};

// The control tokens that open a thought and a call.
inline constexpr absl::string_view kThoughtStart = "<|channel>";
inline constexpr absl::string_view kCallStart = "<|tool_call>";

// Reads Gemma 4's answers as they come (services/model/chat_tools.h):
// "<|channel>thought\n...\n<channel|>" is reasoning, and
// "<|tool_call>call:name{...}<tool_call|>" is a call, given when it is whole. A
// call that cannot be read, or that the answer ends in, is text. A value that
// is neither quoted nor a literal is taken for a string. Thread-compatible.
class ChatAnswer {
 public:
  // The text that follows has this many more of the two marks that the model
  // wrote as control tokens. Marks that were not expected are text: a model
  // that repeats what a message spells calls nothing.
  void Expect(size_t thoughts, size_t calls) {
    thoughts_ += thoughts;
    calls_ += calls;
  }

  // What `text` has completed. Keeps back what may be the beginning of a mark.
  AnswerPart Append(absl::string_view text);
  // The end: what was kept back.
  AnswerPart Finish();

 private:
  enum class State { kText, kThought, kCall };

  // Each false: more text is needed.
  bool ReadText(bool ends, AnswerPart* part);
  bool ReadThought(bool ends, AnswerPart* part);
  bool ReadCall(bool ends, AnswerPart* part);
  AnswerPart Read(bool ends);
  std::string Take(size_t bytes);

  // Marks that are expected.
  size_t thoughts_ = 0;
  size_t calls_ = 0;
  State state_ = State::kText;
  bool in_header_ = false;  // of a thought
  size_t searched_ = 0;     // bytes of a call without its end
  std::string pending_;
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_CHAT_ANSWER_H_
