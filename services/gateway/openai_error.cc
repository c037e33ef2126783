#include "services/gateway/openai_error.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "services/common/error_info.h"

namespace onegrid::gateway {
namespace {

constexpr char kInvalidRequest[] = "invalid_request_error";
constexpr int kDefaultRetrySeconds = 1;

nlohmann::json StringOrNull(const std::string& text) {
  if (text.empty()) return nullptr;
  return text;
}

int HttpStatus(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kCancelled:
      return 499;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

const char* PublicMessage(int http_status) {
  switch (http_status) {
    case 503:
      return "the inference server cannot be reached";
    case 504:
      return "the request took longer than this server allows";
    default:
      return "the inference server failed";
  }
}

int RetrySeconds(const absl::Status& status) {
  const auto metadata = common::ErrorMetadata(status);
  const auto found = metadata.find(std::string(kRetrySecondsKey));
  int seconds = 0;
  if (found == metadata.end() || !absl::SimpleAtoi(found->second, &seconds)) {
    return kDefaultRetrySeconds;
  }
  return std::max(seconds, kDefaultRetrySeconds);
}

}  // namespace

ApiError InvalidField(absl::string_view param, absl::string_view message) {
  return {400, std::string(message), kInvalidRequest, std::string(param), ""};
}

ApiError UnsupportedField(absl::string_view param, absl::string_view message) {
  ApiError error = InvalidField(param, message);
  error.code = "unsupported_parameter";
  return error;
}

ApiError FromStatus(const absl::Status& status) {
  ApiError error;
  error.http_status = HttpStatus(status.code());
  error.message = std::string(status.message());
  const std::string reason = common::ErrorReason(status);
  error.code = absl::AsciiStrToLower(
      reason.empty() ? common::StatusCodeName(status.code()) : reason);
  if (reason.empty() && error.http_status >= 500) {
    // gRPC's own words, which name addresses that are no client's business.
    error.message = PublicMessage(error.http_status);
  }
  if (error.http_status == 400) error.type = kInvalidRequest;
  if (reason == "CONTEXT_TOO_LONG") error.code = "context_length_exceeded";
  if (error.http_status == 429) {
    error.type = "rate_limit_error";
    error.retry_after_seconds = RetrySeconds(status);
  }
  return error;
}

std::string ErrorJson(const ApiError& error) {
  const nlohmann::json json = {{"error",
                                {{"message", error.message},
                                 {"type", error.type},
                                 {"param", StringOrNull(error.param)},
                                 {"code", StringOrNull(error.code)}}}};
  // A message may quote bytes of the request, such as its path.
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace onegrid::gateway
