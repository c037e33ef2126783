// Gemma 4's way of writing tools, calls and results, with its own quotes
// instead of JSON's:
//   <|tool>declaration:{name}{description:<|"|>...<|"|>,parameters:{...}}<tool|>
//   <|tool_call>call:{name}{{key}:<|"|>text<|"|>,...}<tool_call|>
//   <|tool_response>response:{name}{value:<|"|>{result}<|"|>}<tool_response|>
// Keys are in the order of Jinja's dictsort, letters A-Z as a-z. Source: the
// templates of chat_format.h, whose omissions are kept, too.
#ifndef SERVICES_MODEL_CHAT_TOOLS_H_
#define SERVICES_MODEL_CHAT_TOOLS_H_

#include <string>

#include "absl/strings/string_view.h"
#include "services/model/chat_piece_writer.h"
#include "services/model/chat_turns.h"

namespace onegrid::model {

// `function`: a function of the OpenAI API as JSON text, an object with "name"
// and maybe "description" and "parameters", a JSON schema. Returns "", or what
// of it the templates cannot render, in words.
std::string DeclarationProblem(const std::string& function);

// DeclarationProblem(function) must be "". drops_schema_words: see ChatRules.
void WriteDeclaration(const std::string& function, bool drops_schema_words,
                      ChatPieceWriter& writer);

// "" for the text of a JSON object, else what is wrong.
std::string ArgumentsProblem(const std::string& arguments);

// ArgumentsProblem(call.arguments) must be "".
void WriteToolCall(const ToolCall& call, ChatPieceWriter& writer);

void WriteToolResult(absl::string_view name, absl::string_view result,
                     ChatPieceWriter& writer);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_CHAT_TOOLS_H_
