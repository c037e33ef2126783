// How the client finds a controller and what it says when a call fails.
#ifndef CLIENT_CLI_CONNECTION_H_
#define CLIENT_CLI_CONNECTION_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace onegrid::cli {

// Folder that `onegrid local` keeps its state in: $ONEGRID_DATA_DIR, else
// $HOME/.local/share/onegrid.
std::string DefaultDataDir();

// File in a data folder that holds "host:port" of the local controller.
std::string ControllerAddressFile(absl::string_view data_dir);

// The controller's address: `flag` if not empty, else $ONEGRID_CONTROLLER,
// else that of the controller `onegrid local up` started on `data_dir`.
// FailedPrecondition: none of them is set.
absl::StatusOr<std::string> FindController(absl::string_view flag,
                                           absl::string_view data_dir);

// A plaintext channel to host:port. Messages up to 64 MiB are accepted.
std::shared_ptr<grpc::Channel> Connect(const std::string& address);

// A fresh UUID for `request_id` fields.
std::string NewRequestId();

// The status as one line for people: code, message, reason, metadata.
std::string DescribeError(const absl::Status& status);

}  // namespace onegrid::cli

#endif  // CLIENT_CLI_CONNECTION_H_
