// The chat formats of the Gemma families as pieces that are tokenized one by
// one, for whoever has a tokenizer: ChatTemplate, and services that ask an
// inference server for the ids.
//
// Gemma 3. A system turn goes, as it is, before the first user text and a blank
// line; every other text loses the white space at its ends.
//   <bos><start_of_turn>user\n{system}\n\n{text}<end_of_turn>\n
//   <start_of_turn>model\n{text}<end_of_turn>\n...
// Gemma 4. Every text loses the white space at its ends, and an
// assistant's the thoughts in it. The system turn is there, too, if only to say
// <|think|>, which makes the model think; its newline and the empty thought
// depend on the template (chat_format.h).
//   <bos><|turn>system\n<|think|>\n{text}<turn|>\n<|turn>user\n{text}<turn|>\n
//   <|turn>model\n{text}<turn|>\n...
//   <|turn>model\n<|channel>thought\n<channel|>
// Tools are declared at the end of the system turn, and calls, results, and
// what the model says to them are one turn (chat_tools.h):
//   <|turn>model\n{thought}{calls}{results}{text}<turn|>\n
#ifndef SERVICES_MODEL_CHAT_PIECES_H_
#define SERVICES_MODEL_CHAT_PIECES_H_

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "services/model/chat_format.h"
#include "services/model/chat_piece_writer.h"
#include "services/model/chat_turns.h"

namespace onegrid::model {

struct ChatOptions {
  ChatFormat format = ChatFormat::kGemma3;
  // The opening of an assistant turn follows the turns.
  bool open_answer = false;
  // The model is to think before it answers; only of Gemma 4.
  bool enable_thinking = false;
  // What the model may call, each as DeclarationProblem says nothing against;
  // only where ChatRules::tools.
  absl::Span<const std::string> tools = {};
};

// The pieces of a conversation, in order. RenderProblem(turns) must be "", and
// turns of tools only where ChatRules::tools. Thread-safe.
std::vector<ChatPiece> ChatPieces(absl::Span<const Turn> turns,
                                  const ChatOptions& options);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_CHAT_PIECES_H_
