#include "services/gateway/error_response.h"

#include "absl/strings/str_cat.h"

namespace onegrid::gateway {

HttpResponse ErrorResponse(const ApiError& error) {
  HttpResponse response;
  response.status = error.http_status;
  response.body = ErrorJson(error);
  if (error.retry_after_seconds > 0) {
    response.headers.emplace_back("Retry-After",
                                  absl::StrCat(error.retry_after_seconds));
  }
  return response;
}

}  // namespace onegrid::gateway
