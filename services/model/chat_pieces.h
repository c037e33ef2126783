// The chat formats of the Gemma families as pieces that are tokenized one by
// one, for whoever has a tokenizer: ChatTemplate, and services that ask an
// inference server for the ids.
//
// Gemma 3. A system turn goes, as it is, before the first user text and a blank
// line; every other text loses the white space at its ends.
//   <bos><start_of_turn>user\n{system}\n\n{text}<end_of_turn>\n
//   <start_of_turn>model\n{text}<end_of_turn>\n...
// Gemma 4, without tools. Every text loses the white space at its ends, and an
// assistant's the thoughts in it. The system turn is there, too, if only to say
// <|think|>, which makes the model think; its newline and the empty thought
// depend on the template (chat_format.h).
//   <bos><|turn>system\n<|think|>\n{text}<turn|>\n<|turn>user\n{text}<turn|>\n
//   <|turn>model\n{text}<turn|>\n...
//   <|turn>model\n<|channel>thought\n<channel|>
#ifndef SERVICES_MODEL_CHAT_PIECES_H_
#define SERVICES_MODEL_CHAT_PIECES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "services/model/chat_format.h"
#include "services/model/chat_turns.h"

namespace onegrid::model {

struct ChatPiece {
  enum class Kind {
    kBos,      // The begin-of-sequence token; `text` is "<bos>".
    kControl,  // The control token of that name.
    kText,     // Text in which names of control tokens mean nothing.
  };
  Kind kind = Kind::kText;
  std::string text;
  // Index of the assistant turn that the model writes this piece of, its text
  // or its end token; -1 for all else.
  int64_t answer_turn = -1;
};

struct ChatOptions {
  ChatFormat format = ChatFormat::kGemma3;
  // The opening of an assistant turn follows the turns.
  bool open_answer = false;
  // The model is to think before it answers; not for Gemma 3.
  bool enable_thinking = false;
};

// The pieces of a conversation, in order. RenderProblem(turns) must be "".
// Thread-safe.
std::vector<ChatPiece> ChatPieces(absl::Span<const Turn> turns,
                                  const ChatOptions& options);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_CHAT_PIECES_H_
