#include "services/common/grpc_status.h"

#include <map>
#include <string>

#include "proto/google/rpc/error_details.pb.h"
#include "services/common/error_info.h"

namespace onegrid::common {

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  google::rpc::ErrorInfo info;
  info.set_reason(ErrorReason(status));
  if (info.reason().empty()) info.set_reason(StatusCodeName(status.code()));
  info.set_domain(std::string(kErrorDomain));
  for (const auto& [key, value] : ErrorMetadata(status)) {
    (*info.mutable_metadata())[key] = value;
  }
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(std::string(status.message()));
  details.add_details()->PackFrom(info);
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      std::string(status.message()),
                      details.SerializeAsString());
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  google::rpc::Status details;
  if (details.ParseFromString(status.error_details())) {
    for (const google::protobuf::Any& any : details.details()) {
      google::rpc::ErrorInfo info;
      if (!any.UnpackTo(&info)) continue;
      return MakeError(code, info.reason(), status.error_message(),
                       {info.metadata().begin(), info.metadata().end()});
    }
  }
  return absl::Status(code, status.error_message());
}

v1::JobError ToJobError(const absl::Status& status) {
  v1::JobError error;
  error.set_code(static_cast<int>(status.code()));
  error.set_message(std::string(status.message()));
  error.set_reason(ErrorReason(status));
  if (error.reason().empty()) error.set_reason(StatusCodeName(status.code()));
  for (const auto& [key, value] : ErrorMetadata(status)) {
    (*error.mutable_metadata())[key] = value;
  }
  return error;
}

absl::Status FromJobError(const v1::JobError& error) {
  return MakeError(static_cast<absl::StatusCode>(error.code()), error.reason(),
                   error.message(),
                   {error.metadata().begin(), error.metadata().end()});
}

}  // namespace onegrid::common
