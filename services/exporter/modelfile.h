// The Modelfile that Ollama makes a model of a GGUF with.
#ifndef SERVICES_EXPORTER_MODELFILE_H_
#define SERVICES_EXPORTER_MODELFILE_H_

#include <string>
#include <vector>

#include "services/model/chat_pieces.h"

namespace onegrid::exporter {

enum class PromptStyle { kRaw, kGemma3Chat, kGemma4Chat };

// Ollama's template (Go's text/template) of a prompt. For chats it renders what
// ChatTemplate::Text does behind <bos>, which Ollama adds itself, for texts
// without white space at their ends, which Go's templates cannot take away; an
// assistant's turn at the end stays open. Raw prompts are passed on.
std::string OllamaTemplate(PromptStyle style);

// FROM one line for each file; Ollama's server joins shards (server/create.go,
// seen in August 2026). TEMPLATE, PARAMETER stop and the sampling that Gemma's
// generation_config.json has, LICENSE. Ollama's parser/parser.go reads it.
// `gemma4` says whose licence. Thread-safe.
std::string OllamaModelfile(const std::vector<std::string>& files,
                            PromptStyle style, bool gemma4);

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_MODELFILE_H_
