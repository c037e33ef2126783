// Conversions between absl::Status, grpc::Status and v1::JobError that keep
// the ErrorInfo. Thread-safe.
#ifndef SERVICES_COMMON_GRPC_STATUS_H_
#define SERVICES_COMMON_GRPC_STATUS_H_

#include "absl/status/status.h"
#include "grpcpp/support/status.h"
#include "proto/onegrid/v1/common.pb.h"

namespace onegrid::common {

// The same error with a google.rpc.Status in its details. A status without
// an ErrorInfo gets one whose reason is the name of its code.
grpc::Status ToGrpc(const absl::Status& status);

// The same error with the ErrorInfo of its details, if there is one.
absl::Status FromGrpc(const grpc::Status& status);

// A job's error record from a status that is not OK, and back.
v1::JobError ToJobError(const absl::Status& status);
absl::Status FromJobError(const v1::JobError& error);

}  // namespace onegrid::common

#endif  // SERVICES_COMMON_GRPC_STATUS_H_
