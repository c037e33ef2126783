// `onegrid local`: a controller and its services as child processes on
// loopback, with all state in one data folder.
#ifndef CLIENT_CLI_LOCAL_H_
#define CLIENT_CLI_LOCAL_H_

#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace onegrid::cli {

struct LocalOptions {
  std::string data_dir;
  // Folder with the service binaries, one sub-folder each, as Bazel lays them
  // out (controller/controller, ...). Empty: beside this executable.
  std::string bin_dir;
  // 0 picks a free port.
  int port = 0;
  // Passed on to the controller; 0 means its own choice.
  int threads = 0;
};

// Starts the controller detached and waits until it serves; a running one is
// left as it is. Returns its address.
// NotFound (BINARY_MISSING): no controller binary. Unavailable
// (START_FAILED): it exited or did not serve in time; names the log file.
absl::StatusOr<std::string> LocalUp(const LocalOptions& options,
                                    std::ostream& out);

// Stops the controller and, through it, all of its children. OK when nothing
// runs. DeadlineExceeded: it did not stop within `timeout`.
absl::Status LocalDown(const std::string& data_dir, absl::Duration timeout,
                       std::ostream& out);

// Prints whether a controller runs and what it holds.
absl::Status LocalStatus(const std::string& data_dir, bool json,
                         std::ostream& out);

}  // namespace onegrid::cli

#endif  // CLIENT_CLI_LOCAL_H_
