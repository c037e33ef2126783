#include "services/common/stop_signal.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>

#include "absl/time/clock.h"

namespace onegrid::common {
namespace {

std::atomic<bool> stop_requested = false;

// Never read from, so that it stays readable for every waiter.
int StopFd() {
  static const int fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return fd;
}

void OnSignal(int) {
  const int saved_errno = errno;
  RequestStop();
  errno = saved_errno;
}

}  // namespace

void InstallStopSignal() {
  StopFd();
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, nullptr);
}

bool StopRequested() { return stop_requested.load(); }

bool WaitForStop(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (!StopRequested()) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) break;
    // Bounded before the conversion: an infinite one has no room to round up.
    const int64_t left_ms =
        absl::ToInt64Milliseconds(std::min(left, absl::Minutes(1))) + 1;
    pollfd poll_fd = {StopFd(), POLLIN, 0};
    ::poll(&poll_fd, 1, static_cast<int>(left_ms));
  }
  return StopRequested();
}

void RequestStop() {
  stop_requested.store(true);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(StopFd(), &one, sizeof(one));
}

}  // namespace onegrid::common
