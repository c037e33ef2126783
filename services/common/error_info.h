// Errors that carry a machine-readable reason. Free of protobuf and gRPC, so
// that libraries below the services can make them; grpc_status.h puts them on
// the wire. All functions are thread-safe.
#ifndef SERVICES_COMMON_ERROR_INFO_H_
#define SERVICES_COMMON_ERROR_INFO_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace onegrid::common {

// Key of the absl::Status payload that holds a serialized
// google.rpc.ErrorInfo (reason = 1, domain = 2, metadata = 3).
inline constexpr absl::string_view kErrorInfoTypeUrl =
    "type.googleapis.com/google.rpc.ErrorInfo";

// Domain of every OneGrid error.
inline constexpr absl::string_view kErrorDomain = "onegrid.dev";

// Makes a status of `code` with an ErrorInfo of `reason` (UPPER_SNAKE_CASE).
// `metadata` repeats each value that the message quotes. An OK code gives an
// OK status without a payload.
absl::Status MakeError(absl::StatusCode code, absl::string_view reason,
                       absl::string_view message,
                       const std::map<std::string, std::string>& metadata = {});

// The reason of a status made by MakeError; empty for any other.
std::string ErrorReason(const absl::Status& status);

// The metadata of a status made by MakeError; empty for any other.
std::map<std::string, std::string> ErrorMetadata(const absl::Status& status);

// "INVALID_ARGUMENT" for kInvalidArgument, and so on.
std::string StatusCodeName(absl::StatusCode code);

}  // namespace onegrid::common

// Returns from the enclosing function when `expr`, an absl::Status, is not OK.
#define RETURN_IF_ERROR(expr)                                           \
  do {                                                                  \
    if (absl::Status onegrid_status_ = (expr); !onegrid_status_.ok()) { \
      return onegrid_status_;                                           \
    }                                                                   \
  } while (false)

#define ONEGRID_CONCAT_INNER_(a, b) a##b
#define ONEGRID_CONCAT_(a, b) ONEGRID_CONCAT_INNER_(a, b)
#define ONEGRID_ASSIGN_OR_RETURN_(result, lhs, expr) \
  auto result = (expr);                              \
  if (!result.ok()) return result.status();          \
  lhs = *std::move(result)

// Assigns the value of `expr`, an absl::StatusOr, to `lhs` (a declaration or
// an lvalue), or returns its status.
#define ASSIGN_OR_RETURN(lhs, expr)                                          \
  ONEGRID_ASSIGN_OR_RETURN_(ONEGRID_CONCAT_(onegrid_result_, __LINE__), lhs, \
                            expr)

#endif  // SERVICES_COMMON_ERROR_INFO_H_
