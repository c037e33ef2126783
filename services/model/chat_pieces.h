// The chat formats of the Gemma families as pieces that are tokenized one by
// one, for whoever has a tokenizer: ChatTemplate, and services that ask an
// inference server for the ids.
//
// Gemma 3. A system turn goes, as it is, before the first user text and a blank
// line; every other text loses the white space at its ends.
//   <bos><start_of_turn>user\n{system}\n\n{text}<end_of_turn>\n
//   <start_of_turn>model\n{text}<end_of_turn>\n...
// Gemma 4, without thinking and tools, as of the E models: those of 12B and
// more want an empty thought before an answer. Every text loses the white space
// at its ends.
//   <bos><|turn>system\n{text}<turn|>\n<|turn>user\n{text}<turn|>\n
//   <|turn>model\n{text}<turn|>\n...
#ifndef SERVICES_MODEL_CHAT_PIECES_H_
#define SERVICES_MODEL_CHAT_PIECES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "services/model/chat_turns.h"

namespace onegrid::model {

enum class ChatFormat { kGemma3, kGemma4 };

// The control tokens around a turn.
struct TurnMarks {
  const char* start;
  const char* end;
};
TurnMarks TurnMarksOf(ChatFormat format);

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

// The pieces of a conversation, in order. With `open_answer` the opening of an
// assistant turn follows. RenderProblem(turns) must be "". Thread-safe.
std::vector<ChatPiece> ChatPieces(absl::Span<const Turn> turns,
                                  bool open_answer,
                                  ChatFormat format = ChatFormat::kGemma3);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_CHAT_PIECES_H_
