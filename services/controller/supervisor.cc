#include "services/controller/supervisor.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/common/files.h"
#include "services/common/log.h"
#include "services/controller/process.h"

namespace onegrid::controller {
namespace {

using State = ProcessStatus::State;

std::string ProblemOf(const ProcessSpec& spec, off_t log_start,
                      int wait_status) {
  const std::string line = LastLogLine(spec.log_file, log_start);
  return absl::StrCat(DescribeExit(wait_status), line.empty() ? "" : ": ",
                      line);
}

}  // namespace

Supervisor::Supervisor(Options options)
    : options_(std::move(options)), thread_([this] { Loop(); }) {}

Supervisor::~Supervisor() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void Supervisor::Want(const std::string& name, const ProcessSpec& spec) {
  absl::MutexLock lock(&mutex_);
  const auto [found, inserted] = children_.try_emplace(name);
  Child& child = found->second;
  if (inserted) {
    child.spec = spec;
    child.start_at = absl::Now();
    child.backoff = options_.backoff_min;
    return;
  }
  if (child.status.state != State::kStopping && child.spec == spec) return;
  child.next_spec = spec;
  StopChild(&child);
}

void Supervisor::Unwant(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  const auto found = children_.find(name);
  if (found == children_.end()) return;
  found->second.next_spec.reset();
  StopChild(&found->second);
}

std::optional<ProcessStatus> Supervisor::StatusOf(
    const std::string& name) const {
  absl::MutexLock lock(&mutex_);
  const auto found = children_.find(name);
  if (found == children_.end()) return std::nullopt;
  return found->second.status;
}

std::vector<std::string> Supervisor::Names() const {
  absl::MutexLock lock(&mutex_);
  std::vector<std::string> names;
  for (const auto& [name, child] : children_) names.push_back(name);
  return names;
}

void Supervisor::Loop() {
  while (true) {
    std::vector<std::pair<std::string, std::string>> deaths;
    bool changed = false;
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) {
        for (auto& [name, child] : children_) {
          child.next_spec.reset();
          StopChild(&child);
        }
      }
      Poll(&deaths, &changed);
      if (stopping_ && children_.empty()) return;
    }
    for (const auto& [name, problem] : deaths) {
      common::LogWarning("process_died",
                         {{"name", name}, {"problem", problem}});
      if (options_.on_death) options_.on_death(name, problem);
    }
    if (changed && options_.on_change) options_.on_change();
    absl::SleepFor(options_.poll_period);
  }
}

void Supervisor::Poll(std::vector<std::pair<std::string, std::string>>* deaths,
                      bool* changed) {
  const absl::Time now = absl::Now();
  for (auto it = children_.begin(); it != children_.end();) {
    const std::string& name = it->first;
    Child& child = it->second;
    ProcessStatus& status = child.status;
    if (status.pid != 0 && Reap(&child)) {
      *changed = true;
      if (status.state != State::kStopping) {
        deaths->push_back({name, status.problem});
        const bool gave_up =
            child.spec.start_failures_max > 0 &&
            child.start_failures >= child.spec.start_failures_max;
        status.state = gave_up ? State::kFailed : State::kStarting;
        child.start_at = now + child.backoff;
        child.backoff = std::min(2 * child.backoff, options_.backoff_max);
        ++status.restarts;
      }
    }
    if (status.state == State::kStopping && status.pid == 0) {
      *changed = true;
      if (!child.next_spec.has_value()) {
        it = children_.erase(it);
        continue;
      }
      const ProcessSpec spec = *child.next_spec;
      child = Child();
      child.spec = spec;
      child.start_at = now;
      child.backoff = options_.backoff_min;
    }
    if (status.pid != 0 && now >= child.kill_at) ::kill(status.pid, SIGKILL);
    if (status.state == State::kStarting && status.pid == 0 &&
        now >= child.start_at) {
      StartChild(&child);
    } else if (status.state == State::kStarting && status.pid != 0) {
      const absl::StatusOr<std::string> address =
          common::ReadFile(child.spec.port_file);
      if (address.ok() && !address->empty()) {
        status.address = std::string(absl::StripAsciiWhitespace(*address));
        status.state = State::kReady;
        child.start_failures = 0;
        child.backoff = options_.backoff_min;
        *changed = true;
        common::LogInfo("process_ready",
                        {{"name", name}, {"address", status.address}});
      }
    }
    ++it;
  }
}

void Supervisor::StartChild(Child* child) {
  ::unlink(child->spec.port_file.c_str());
  struct stat info = {};
  child->log_start =
      ::stat(child->spec.log_file.c_str(), &info) == 0 ? info.st_size : 0;
  const absl::StatusOr<pid_t> pid =
      StartProcess(child->spec.argv, child->spec.log_file);
  if (pid.ok()) {
    child->status.pid = *pid;
    return;
  }
  child->status.problem = std::string(pid.status().message());
  child->start_at = absl::Now() + child->backoff;
  child->backoff = std::min(2 * child->backoff, options_.backoff_max);
  ++child->start_failures;
  if (child->spec.start_failures_max > 0 &&
      child->start_failures >= child->spec.start_failures_max) {
    child->status.state = State::kFailed;
  }
}

void Supervisor::StopChild(Child* child) {
  if (child->status.state == State::kStopping) return;
  child->status.state = State::kStopping;
  child->status.address.clear();
  if (child->status.pid == 0) return;
  ::kill(child->status.pid, SIGTERM);
  child->kill_at = absl::Now() + options_.stop_timeout;
}

bool Supervisor::Reap(Child* child) {
  int wait_status = 0;
  if (::waitpid(child->status.pid, &wait_status, WNOHANG) == 0) return false;
  child->status.problem = ProblemOf(child->spec, child->log_start, wait_status);
  if (child->status.state == State::kStarting) ++child->start_failures;
  child->status.pid = 0;
  child->status.address.clear();
  return true;
}

}  // namespace onegrid::controller
