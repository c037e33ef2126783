#include "services/controller/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::controller {
namespace {

// Runs in the child after fork: async-signal-safe calls only.
[[noreturn]] void RunChild(char* const* argv, int log_fd, pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  // The parent may have died before the line above.
  if (::getppid() != parent) ::_exit(127);
  struct sigaction by_default = {};
  by_default.sa_handler = SIG_DFL;
  for (const int signal : {SIGTERM, SIGINT, SIGPIPE}) {
    ::sigaction(signal, &by_default, nullptr);
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  const int null_fd = ::open("/dev/null", O_RDONLY);
  ::dup2(null_fd, STDIN_FILENO);
  ::dup2(log_fd, STDOUT_FILENO);
  ::dup2(log_fd, STDERR_FILENO);
  ::execv(argv[0], argv);
  const char message[] = "cannot execute the program\n";
  [[maybe_unused]] const ssize_t n =
      ::write(STDERR_FILENO, message, sizeof(message) - 1);
  ::_exit(127);
}

}  // namespace

absl::StatusOr<pid_t> StartProcess(const std::vector<std::string>& argv,
                                   const std::string& log_file) {
  const int log_fd =
      ::open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log_fd < 0) return common::ErrnoError(errno, "open", log_file);
  const absl::Cleanup close_log = [log_fd] { ::close(log_fd); };
  // Everything that allocates happens before fork.
  std::vector<char*> pointers;
  for (const std::string& argument : argv) {
    pointers.push_back(const_cast<char*>(argument.c_str()));
  }
  pointers.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return common::ErrnoError(errno, "fork for", argv[0]);
  if (pid == 0) RunChild(pointers.data(), log_fd, parent);
  return pid;
}

std::string DescribeExit(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    return absl::StrCat("killed by signal ", WTERMSIG(wait_status));
  }
  return absl::StrCat("exit code ", WEXITSTATUS(wait_status));
}

std::string LastLogLine(const std::string& log_file, off_t start) {
  constexpr off_t kTailBytes = 4096;
  constexpr size_t kLineBytes = 500;
  const int fd = ::open(log_file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  const absl::Cleanup close_fd = [fd] { ::close(fd); };
  const off_t end = ::lseek(fd, 0, SEEK_END);
  const off_t from = std::max(start, end - kTailBytes);
  if (from >= end) return "";
  std::string tail(end - from, '\0');
  const ssize_t n = ::pread(fd, tail.data(), tail.size(), from);
  if (n <= 0) return "";
  tail.resize(n);
  const std::vector<std::string> lines =
      absl::StrSplit(tail, '\n', absl::SkipWhitespace());
  return lines.empty() ? "" : lines.back().substr(0, kLineBytes);
}

}  // namespace onegrid::controller
