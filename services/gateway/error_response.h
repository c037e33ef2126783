// An error of the API as an HTTP response.
#ifndef SERVICES_GATEWAY_ERROR_RESPONSE_H_
#define SERVICES_GATEWAY_ERROR_RESPONSE_H_

#include "services/gateway/http_server.h"
#include "services/gateway/openai_error.h"

namespace onegrid::gateway {

// With Retry-After where the error asks for it.
HttpResponse ErrorResponse(const ApiError& error);

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_ERROR_RESPONSE_H_
