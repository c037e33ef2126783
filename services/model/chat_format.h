// The formats that the Gemma families' chat templates render conversations in,
// and which template renders which.
//
// A template is Jinja text in the model's files. Those known here are known by
// digest, and chat_pieces.h writes what they render
// (tests/parity/chat_template_parity.py); no Jinja is run.
#ifndef SERVICES_MODEL_CHAT_FORMAT_H_
#define SERVICES_MODEL_CHAT_FORMAT_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "services/model/gemma_config.h"

namespace onegrid::model {

enum class ChatFormat {
  kGemma3,
  // Gemma 4's as Google's templates since May 2026 render it, of E2B and E4B:
  // nothing between the opening of an answer and the answer.
  kGemma4,
  // The same of 12B and more: an empty thought opens the answer of a model that
  // is not to think.
  kGemma4EmptyThought,
  // The templates before: parameters of tools that are named like a word of
  // schemas ("type") are left out.
  kGemma4Second,
  kGemma4SecondEmptyThought,
  // The templates of April 2026: no newline behind <|think|>, and no turns of
  // tools.
  kGemma4First,
  kGemma4FirstEmptyThought,
};

// The control tokens around a turn.
struct TurnMarks {
  const char* start;
  const char* end;
};

struct ChatRules {
  const char* name;  // as flags and reports have it: "gemma4-empty-thought"
  TurnMarks marks;
  // Gemma 4: a turn of the system's own, thoughts, and text trimmed in it.
  bool gemma4 = false;
  bool newline_after_think = false;
  bool empty_thought = false;
  bool tools = false;
  // A parameter that is named like a word of schemas is left out.
  bool drops_schema_words = false;
  // A blank text ends a turn with tool calls as any text does.
  bool blank_text_ends_turn = false;
};
const ChatRules& RulesOf(ChatFormat format);

// The format of that name; none if there is no such one.
std::optional<ChatFormat> ChatFormatNamed(absl::string_view name);

// "gemma3, gemma4, ..."
std::string ChatFormatNames();

// The format that a chat template renders, by the SHA-256 of its text as Jinja
// reads it; none for templates that are not known. Two texts that differ in
// nothing but whether they have the lines of the empty thought are one template
// with and without it.
std::optional<ChatFormat> FormatOfTemplate(absl::string_view jinja);

// The format of a model whose files have no template.
ChatFormat DefaultChatFormat(const GemmaConfig& config);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_CHAT_FORMAT_H_
