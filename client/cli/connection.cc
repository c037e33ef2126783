#include "client/cli/connection.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::cli {
namespace {

constexpr int kMaxMessageBytes = 64 << 20;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

std::string DefaultDataDir() {
  const std::string configured = Environment("ONEGRID_DATA_DIR");
  if (!configured.empty()) return configured;
  return absl::StrCat(Environment("HOME"), "/.local/share/onegrid");
}

std::string ControllerAddressFile(absl::string_view data_dir) {
  return absl::StrCat(data_dir, "/controller.address");
}

absl::StatusOr<std::string> FindController(absl::string_view flag,
                                           absl::string_view data_dir) {
  if (!flag.empty()) return std::string(flag);
  const std::string configured = Environment("ONEGRID_CONTROLLER");
  if (!configured.empty()) return configured;
  absl::StatusOr<std::string> address =
      common::ReadFile(ControllerAddressFile(data_dir));
  if (!address.ok()) {
    return common::MakeError(
        absl::StatusCode::kFailedPrecondition, "NO_CONTROLLER",
        absl::StrCat("no controller is known: pass --controller HOST:PORT, set "
                     "ONEGRID_CONTROLLER, or start one with `onegrid local "
                     "up` (looked for ",
                     ControllerAddressFile(data_dir), ")"),
        {{"data_dir", std::string(data_dir)}});
  }
  return std::string(absl::StripAsciiWhitespace(*address));
}

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(),
                                   arguments);
}

std::string NewRequestId() {
  absl::StatusOr<std::string> id =
      common::ReadFile("/proc/sys/kernel/random/uuid");
  return id.ok() ? std::string(absl::StripAsciiWhitespace(*id)) : "";
}

std::string DescribeError(const absl::Status& status) {
  std::string text = absl::StrCat(absl::StatusCodeToString(status.code()), ": ",
                                  status.message());
  const std::string reason = common::ErrorReason(status);
  if (!reason.empty()) absl::StrAppend(&text, " [", reason, "]");
  return text;
}

}  // namespace onegrid::cli
