// What the commands of `onegrid` share: global flags, the chosen action,
// output.
#ifndef CLIENT_CLI_PROGRAM_H_
#define CLIENT_CLI_PROGRAM_H_

#include <unistd.h>

#include <functional>
#include <iostream>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/api.h"
#include "client/cli/connection.h"
#include "client/cli/jobs.h"
#include "client/cli/local.h"
#include "services/common/error_info.h"

namespace onegrid::cli {

// Flags that every command shares, and the action that was chosen.
struct Program {
  std::string controller;
  std::string data_dir = DefaultDataDir();
  bool json = false;
  std::function<absl::Status()> action;

  ProgressSink sink() const { return {&std::cerr, isatty(STDERR_FILENO) != 0}; }

  absl::StatusOr<std::unique_ptr<Api>> Open() const {
    ASSIGN_OR_RETURN(const std::string address,
                     FindController(controller, data_dir));
    return std::make_unique<Api>(Connect(address));
  }

  // Prints a created or found resource: its JSON, or its name.
  template <typename Resource>
  absl::Status Print(const Resource& resource) const {
    std::cout << (json ? ToJson(resource) : resource.name()) << std::endl;
    return absl::OkStatus();
  }

  // Waits for `resource` unless `detach`, then prints it.
  template <typename Resource>
  absl::Status Complete(Api& api, const Resource& resource, bool detach) const {
    if (detach) return Print(resource);
    RETURN_IF_ERROR(WaitFor(api, resource.name(), sink()));
    ASSIGN_OR_RETURN(const MessagePtr done, GetResource(api, resource.name()));
    if (json) {
      std::cout << ToJson(*done) << std::endl;
      return absl::OkStatus();
    }
    std::cout << done->DebugString();
    return absl::OkStatus();
  }
};

}  // namespace onegrid::cli

#endif  // CLIENT_CLI_PROGRAM_H_
