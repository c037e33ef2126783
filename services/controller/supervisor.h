// Keeps child processes running on this machine.
#ifndef SERVICES_CONTROLLER_SUPERVISOR_H_
#define SERVICES_CONTROLLER_SUPERVISOR_H_

#include <sys/types.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace onegrid::controller {

// A program to keep running.
struct ProcessSpec {
  // Path of the program and its arguments.
  std::vector<std::string> argv;
  // The program writes its address there once it serves. Removed before each
  // start.
  std::string port_file;
  // Standard output and error are appended there.
  std::string log_file;
  // Give up after this many exits in a row before it served; 0: never.
  int start_failures_max = 0;

  bool operator==(const ProcessSpec&) const = default;
};

// Where a process is.
struct ProcessStatus {
  enum class State { kStarting, kReady, kFailed, kStopping };
  State state = State::kStarting;
  pid_t pid = 0;
  // Content of the port file while kReady.
  std::string address;
  int restarts = 0;
  // How the last run ended, with its last line of output.
  std::string problem;
};

// Starts, restarts with backoff, and stops children. They die with this
// process even if it is killed: each asks the kernel for SIGKILL on the death
// of the one thread that starts them all. Thread-safe.
class Supervisor {
 public:
  struct Options {
    // Called on the supervisor's thread after a child that was not told to
    // stop has ended, before it is started again.
    std::function<void(const std::string& name, const std::string& problem)>
        on_death;
    // Called on the supervisor's thread when a status has changed.
    std::function<void()> on_change;
    absl::Duration backoff_min = absl::Milliseconds(200);
    absl::Duration backoff_max = absl::Seconds(10);
    // From SIGTERM to SIGKILL.
    absl::Duration stop_timeout = absl::Seconds(10);
    absl::Duration poll_period = absl::Milliseconds(50);
  };

  explicit Supervisor(Options options);
  // Stops every child.
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  // Wants `name` to run as in `spec`. A child with another spec is replaced.
  void Want(const std::string& name, const ProcessSpec& spec);
  // Wants `name` not to run. It is gone when StatusOf has nothing.
  void Unwant(const std::string& name);
  std::optional<ProcessStatus> StatusOf(const std::string& name) const;
  std::vector<std::string> Names() const;

 private:
  struct Child {
    ProcessSpec spec;
    ProcessStatus status;
    // Set while it is to be started with another spec after it stopped.
    std::optional<ProcessSpec> next_spec;
    int start_failures = 0;
    off_t log_start = 0;
    absl::Time start_at;
    absl::Time kill_at = absl::InfiniteFuture();
    absl::Duration backoff;
  };

  void Loop();
  // One pass over the children; collects who died for the callbacks.
  void Poll(std::vector<std::pair<std::string, std::string>>* deaths,
            bool* changed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StartChild(Child* child) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StopChild(Child* child) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // True if it has ended.
  bool Reap(Child* child) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  mutable absl::Mutex mutex_;
  std::map<std::string, Child> children_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_SUPERVISOR_H_
