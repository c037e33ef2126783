// Calls of tools as Gemma 4 writes them (services/model/chat_tools.h), read.
#ifndef SERVICES_GATEWAY_CALL_PARSER_H_
#define SERVICES_GATEWAY_CALL_PARSER_H_

#include <string>

#include "absl/strings/string_view.h"

namespace onegrid::gateway {

// Reads "call:name{key:value,...}": values are <|"|>quoted<|"|>, objects,
// lists, true, false, null, numbers, and all else a string. `arguments` becomes
// the text of a JSON object with the keys in their order; of two equal keys the
// last counts. False for anything else, or values within values deeper than 64.
// Never throws. Thread-safe.
bool ParseCall(absl::string_view text, std::string* name,
               std::string* arguments);

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_CALL_PARSER_H_
