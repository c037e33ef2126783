// What a request says its answer has to be: OpenAI's response_format, and the
// fields that other servers of its API have for it.
#ifndef SERVICES_GATEWAY_STRUCTURE_FIELDS_H_
#define SERVICES_GATEWAY_STRUCTURE_FIELDS_H_

#include <optional>

#include "absl/strings/string_view.h"
#include "proto/onegrid/v1/generation.pb.h"
#include "services/gateway/json_fields.h"

namespace onegrid::gateway {

// Reads response_format, guided_json, guided_regex, guided_choice and
// structured_outputs (json, json_object, regex, choice); null in any of them is
// the same as absent. `body`: the text of the fields, in which the order of a
// schema's properties is kept, as the answer has it. A schema is held to
// whether it is called strict or not. Errors that name the field: a wrong type,
// another kind, or more than one.
void ReadStructure(JsonFields& fields, absl::string_view body,
                   std::optional<v1::Structure>* structure);

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_STRUCTURE_FIELDS_H_
