// Fields of the API that are known and cannot be honoured.
#ifndef SERVICES_GATEWAY_UNSUPPORTED_FIELDS_H_
#define SERVICES_GATEWAY_UNSUPPORTED_FIELDS_H_

#include "services/gateway/json_fields.h"

namespace onegrid::gateway {

// Notes an error when a field asks for what would change the answer and the
// backend cannot do; the same fields at values that change nothing pass
// (logit_bias {}, suffix "", n best of 1, tool_choice "auto").
void RefuseUnsupported(JsonFields& fields);

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_UNSUPPORTED_FIELDS_H_
