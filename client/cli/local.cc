#include "client/cli/local.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "client/cli/connection.h"
#include "proto/onegrid/v1/deployment.grpc.pb.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::cli {
namespace {

constexpr absl::Duration kStartTimeout = absl::Seconds(30);
constexpr absl::Duration kPoll = absl::Milliseconds(50);

std::string PidFile(const std::string& data_dir) {
  return data_dir + "/controller.pid";
}

// True when `pid` is a live process whose executable is a controller: a pid
// file that outlived its process must not make us signal a stranger.
bool IsController(pid_t pid) {
  std::error_code error;
  const std::filesystem::path exe =
      std::filesystem::read_symlink(absl::StrCat("/proc/", pid, "/exe"), error);
  return !error && exe.filename().string().rfind("controller", 0) == 0;
}

// The pid of the running controller, or 0.
pid_t RunningController(const std::string& data_dir) {
  absl::StatusOr<std::string> text = common::ReadFile(PidFile(data_dir));
  int pid = 0;
  if (!text.ok() ||
      !absl::SimpleAtoi(absl::StripAsciiWhitespace(*text), &pid)) {
    return 0;
  }
  return pid > 0 && IsController(pid) ? pid : 0;
}

std::string DefaultBinDir() {
  std::error_code error;
  const std::filesystem::path exe =
      std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return "";
  const std::filesystem::path folder = exe.parent_path();
  // Installed: all binaries in one folder. Built: client/cli beside services.
  if (std::filesystem::exists(folder / "controller")) return folder.string();
  return (folder.parent_path().parent_path() / "services").string();
}

absl::StatusOr<std::string> FindBinary(const std::string& bin_dir) {
  for (const std::string& path :
       {absl::StrCat(bin_dir, "/controller/controller"),
        absl::StrCat(bin_dir, "/controller")}) {
    if (access(path.c_str(), X_OK) == 0 &&
        !std::filesystem::is_directory(path)) {
      return path;
    }
  }
  return common::MakeError(
      absl::StatusCode::kNotFound, "BINARY_MISSING",
      absl::StrCat("no controller binary in ", bin_dir,
                   "; build it (bazel build //...) or pass --bin-dir"),
      {{"bin_dir", bin_dir}});
}

// Forks and executes `arguments` in a session of its own, output to `log`.
absl::StatusOr<pid_t> SpawnDetached(const std::vector<std::string>& arguments,
                                    const std::string& log) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  const int log_fd =
      open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log_fd < 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot write ", log, ": ", std::strerror(errno)));
  }
  const pid_t pid = fork();
  if (pid == 0) {
    setsid();
    const int null_fd = open("/dev/null", O_RDONLY);
    dup2(null_fd, STDIN_FILENO);
    dup2(log_fd, STDOUT_FILENO);
    dup2(log_fd, STDERR_FILENO);
    execv(argv[0], argv.data());
    _exit(127);
  }
  close(log_fd);
  if (pid < 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot fork: ", std::strerror(errno)));
  }
  return pid;
}

absl::Status StartFailed(const std::string& what, const std::string& log) {
  // Its last words say why.
  const absl::StatusOr<std::string> text = common::ReadFile(log);
  const std::vector<std::string> lines =
      absl::StrSplit(text.ok() ? absl::StripAsciiWhitespace(*text) : "", '\n');
  return common::MakeError(absl::StatusCode::kUnavailable, "START_FAILED",
                           absl::StrCat("the controller ", what, ": ",
                                        lines.back(), " (log: ", log, ")"),
                           {{"log", log}});
}

// The port in an address file that a killed controller left; 0: there is none.
int PortOf(const std::string& address_file) {
  const absl::StatusOr<std::string> address = common::ReadFile(address_file);
  int port = 0;
  if (!address.ok() ||
      !absl::SimpleAtoi(address->substr(address->rfind(':') + 1), &port)) {
    return 0;
  }
  return port;
}

// Starts a controller on exactly these options and waits until it serves.
absl::StatusOr<std::string> StartController(const LocalOptions& options,
                                            std::ostream& out) {
  const std::string address_file = ControllerAddressFile(options.data_dir);
  std::error_code error;
  std::filesystem::remove(address_file, error);
  absl::StatusOr<std::string> binary = FindBinary(options.bin_dir);
  if (!binary.ok()) return binary.status();
  const std::string log = absl::StrCat(options.data_dir, "/controller.log");
  std::vector<std::string> arguments = {
      *binary,
      absl::StrCat("--data_dir=", options.data_dir),
      absl::StrCat("--port=", options.port),
      absl::StrCat("--port_file=", address_file),
      "--runner=local",
      absl::StrCat("--bin_dir=", options.bin_dir)};
  if (options.threads > 0) {
    arguments.push_back(absl::StrCat("--threads=", options.threads));
  }
  absl::StatusOr<pid_t> pid = SpawnDetached(arguments, log);
  if (!pid.ok()) return pid.status();
  if (absl::Status status = common::WriteFileAtomic(PidFile(options.data_dir),
                                                    absl::StrCat(*pid, "\n"));
      !status.ok()) {
    kill(*pid, SIGTERM);
    return status;
  }
  for (const absl::Time deadline = absl::Now() + kStartTimeout;
       absl::Now() < deadline; absl::SleepFor(kPoll)) {
    int exit_status = 0;
    if (waitpid(*pid, &exit_status, WNOHANG) == *pid) {
      return StartFailed("exited at start", log);
    }
    absl::StatusOr<std::string> address = common::ReadFile(address_file);
    if (address.ok()) {
      const std::string trimmed(absl::StripAsciiWhitespace(*address));
      out << "controller started (pid " << *pid << ") at " << trimmed
          << ", state in " << options.data_dir << std::endl;
      return trimmed;
    }
  }
  kill(*pid, SIGTERM);
  return StartFailed("did not serve in time", log);
}

}  // namespace

absl::StatusOr<std::string> LocalUp(const LocalOptions& options,
                                    std::ostream& out) {
  const std::string address_file = ControllerAddressFile(options.data_dir);
  if (const pid_t pid = RunningController(options.data_dir); pid != 0) {
    absl::StatusOr<std::string> address = common::ReadFile(address_file);
    if (address.ok()) {
      out << "controller is running (pid " << pid << ") at " << *address
          << std::endl;
      return std::string(absl::StripAsciiWhitespace(*address));
    }
  }
  std::error_code error;
  std::filesystem::create_directories(options.data_dir, error);
  if (error) {
    return absl::UnavailableError(absl::StrCat(
        "cannot create ", options.data_dir, ": ", error.message()));
  }
  LocalOptions chosen = options;
  if (chosen.bin_dir.empty()) chosen.bin_dir = DefaultBinDir();
  if (chosen.port == 0) {
    // A killed controller comes back where its clients look for it.
    chosen.port = PortOf(address_file);
    absl::StatusOr<std::string> address = StartController(chosen, out);
    if (address.ok() || chosen.port == 0) return address;
    chosen.port = 0;
  }
  return StartController(chosen, out);
}

absl::Status LocalDown(const std::string& data_dir, absl::Duration timeout,
                       std::ostream& out) {
  const pid_t pid = RunningController(data_dir);
  if (pid == 0) {
    out << "no controller runs on " << data_dir << std::endl;
    return absl::OkStatus();
  }
  kill(pid, SIGTERM);
  for (const absl::Time deadline = absl::Now() + timeout;
       absl::Now() < deadline; absl::SleepFor(kPoll)) {
    waitpid(pid, nullptr, WNOHANG);
    if (!IsController(pid)) {
      std::error_code error;
      std::filesystem::remove(PidFile(data_dir), error);
      std::filesystem::remove(ControllerAddressFile(data_dir), error);
      out << "controller stopped" << std::endl;
      return absl::OkStatus();
    }
  }
  return absl::DeadlineExceededError(
      absl::StrCat("the controller (pid ", pid, ") has not stopped after ",
                   absl::FormatDuration(timeout)));
}

absl::Status LocalStatus(const std::string& data_dir, bool json,
                         std::ostream& out) {
  const pid_t pid = RunningController(data_dir);
  absl::StatusOr<std::string> address =
      common::ReadFile(ControllerAddressFile(data_dir));
  nlohmann::json status = {{"data_dir", data_dir}, {"running", pid != 0}};
  if (pid != 0 && address.ok()) {
    status["pid"] = pid;
    status["address"] = std::string(absl::StripAsciiWhitespace(*address));
    auto stub = v1::DeploymentService::NewStub(Connect(status["address"]));
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(5)));
    v1::ListDeploymentsResponse response;
    const bool ok = stub->ListDeployments(&context, {}, &response).ok();
    status["healthy"] = ok;
    status["deployments"] = nlohmann::json::array();
    for (const v1::Deployment& deployment : response.deployments()) {
      status["deployments"].push_back(
          {{"name", deployment.name()},
           {"state", v1::Deployment::State_Name(deployment.state())},
           {"endpoint", deployment.endpoint()}});
    }
  }
  if (json) {
    out << status.dump(2) << std::endl;
    return absl::OkStatus();
  }
  if (pid == 0) {
    out << "not running (state in " << data_dir << ")" << std::endl;
    return absl::OkStatus();
  }
  out << "running: pid " << pid << " at " << status.value("address", "?")
      << (status.value("healthy", false) ? "" : " (does not answer)")
      << ", state in " << data_dir << std::endl;
  for (const auto& deployment : status["deployments"]) {
    out << "  " << deployment["name"].get<std::string>() << " "
        << deployment["state"].get<std::string>() << " "
        << deployment["endpoint"].get<std::string>() << std::endl;
  }
  return absl::OkStatus();
}

}  // namespace onegrid::cli
