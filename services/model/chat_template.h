// The chat format of a Gemma family (chat_pieces.h), made of tokens rather than
// of text.
//
// For texts without the names of control tokens the ids equal those of the
// family's Jinja template (tests/parity/chat_template_parity.py). Where a text
// does hold such a name it stays text: what a user types cannot end a turn.
#ifndef SERVICES_MODEL_CHAT_TEMPLATE_H_
#define SERVICES_MODEL_CHAT_TEMPLATE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/model/chat_format.h"
#include "services/model/chat_pieces.h"
#include "services/model/chat_turns.h"
#include "services/model/tokenizer.h"

namespace onegrid::model {

// What the model writes of an assistant turn, its text and the end of turn:
// tokens begin..end-1.
struct AnswerTokens {
  int64_t turn = 0;  // Index of the turn.
  int64_t begin = 0;
  int64_t end = 0;
};

struct ChatTokens {
  std::vector<int32_t> tokens;
  std::vector<AnswerTokens> answers;  // Of all assistant turns, in order.
};

// Thread-safe. The tokenizer must outlive it.
class ChatTemplate {
 public:
  // Gemma 4's format for a vocabulary with a control token <|turn>, Gemma 3's
  // for others: without a thought before an answer all revisions of Gemma 4's
  // are one. FailedPrecondition (NO_CHAT_TOKENS): the vocabulary has no control
  // tokens <start_of_turn> and <end_of_turn>, or no <turn|>.
  static absl::StatusOr<ChatTemplate> Create(const Tokenizer& tokenizer);

  // The tokens of a conversation. With `open_answer` the opening of an
  // assistant turn follows, for which a model then writes the text.
  // RenderProblem(turns) must be "".
  ChatTokens Encode(absl::Span<const Turn> turns, bool open_answer) const;

  // The format: "gemma3" or "gemma4".
  const char* name() const { return RulesOf(format_).name; }
  ChatFormat format() const { return format_; }

  // The text that the family's template renders.
  static std::string Text(absl::Span<const Turn> turns,
                          const ChatOptions& options);

  // 64 hex digits: SHA-256 of Text of a fixed conversation that shows every
  // rule of plain turns. Formats that differ in tools and thoughts only, which
  // are not learned, have one digest.
  static std::string Digest(ChatFormat format = ChatFormat::kGemma3);

 private:
  ChatTemplate(const Tokenizer& tokenizer, ChatFormat format,
               int32_t start_of_turn, int32_t end_of_turn)
      : tokenizer_(&tokenizer),
        format_(format),
        start_of_turn_(start_of_turn),
        end_of_turn_(end_of_turn) {}

  const Tokenizer* tokenizer_;
  ChatFormat format_;
  int32_t start_of_turn_;
  int32_t end_of_turn_;
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_CHAT_TEMPLATE_H_
