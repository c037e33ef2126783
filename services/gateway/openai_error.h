// Errors as clients of the OpenAI API expect them.
#ifndef SERVICES_GATEWAY_OPENAI_ERROR_H_
#define SERVICES_GATEWAY_OPENAI_ERROR_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace onegrid::gateway {

// Metadata key of a status whose cause asks to wait this many seconds.
inline constexpr absl::string_view kRetrySecondsKey = "retry_seconds";

// An error answer. `param` names the field of the request that is wrong,
// `code` is for programs; both may be empty, which is written as null.
struct ApiError {
  int http_status = 500;
  std::string message;
  std::string type = "server_error";
  std::string param;
  std::string code;
  // Of the Retry-After header; 0 leaves it out.
  int retry_after_seconds = 0;
};

// 400: a field of the request is wrong.
ApiError InvalidField(absl::string_view param, absl::string_view message);

// 400: the field is known, but what it asks for cannot be done, and leaving it
// out would give another answer than asked for.
ApiError UnsupportedField(absl::string_view param, absl::string_view message);

// What a failed call of the backend is to the client:
//   INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE  400
//   RESOURCE_EXHAUSTED  429, with Retry-After
//   CANCELLED           499
//   UNAVAILABLE         503
//   DEADLINE_EXCEEDED   504
//   all else            500
// The code is the reason of its ErrorInfo in lower case; for a prompt that is
// too long OpenAI's own, "context_length_exceeded". The message is the status's
// own only if it has an ErrorInfo or is the client's doing.
ApiError FromStatus(const absl::Status& status);

// {"error": {"message", "type", "param", "code"}}.
std::string ErrorJson(const ApiError& error);

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_OPENAI_ERROR_H_
