#include "services/controller/supervisor.h"

#include <signal.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "services/common/files.h"

namespace onegrid::controller {
namespace {

using State = ProcessStatus::State;

// Children are shell scripts; waits end as soon as their condition holds.
class SupervisorTest : public testing::Test {
 protected:
  SupervisorTest() {
    std::string name = testing::TempDir() + "/supervisor.XXXXXX";
    folder_ = ::mkdtemp(name.data());
    Supervisor::Options options;
    options.on_death = [this](const std::string& name, const std::string&) {
      absl::MutexLock lock(&mutex_);
      deaths_ += name + " ";
    };
    options.backoff_min = absl::Milliseconds(10);
    options.poll_period = absl::Milliseconds(5);
    options.stop_timeout = absl::Milliseconds(300);
    supervisor_ = std::make_unique<Supervisor>(options);
  }

  ProcessSpec Script(const std::string& text) {
    ProcessSpec spec;
    spec.port_file = folder_ + "/port";
    spec.log_file = folder_ + "/log";
    spec.argv = {"/bin/sh", "-c", text, "sh", spec.port_file};
    return spec;
  }

  bool Eventually(const std::function<bool()>& condition) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (absl::Now() < deadline) {
      if (condition()) return true;
      absl::SleepFor(absl::Milliseconds(5));
    }
    return false;
  }

  bool Is(State state) {
    const auto status = supervisor_->StatusOf("x");
    return status.has_value() && status->state == state;
  }

  std::string Deaths() {
    absl::MutexLock lock(&mutex_);
    return deaths_;
  }

  std::string folder_;
  absl::Mutex mutex_;
  std::string deaths_;
  std::unique_ptr<Supervisor> supervisor_;
};

TEST_F(SupervisorTest, ReadyChildHasItsAddress) {
  supervisor_->Want("x", Script("echo host:1 > $1; exec sleep 100"));
  ASSERT_TRUE(Eventually([&] { return Is(State::kReady); }));
  EXPECT_EQ(supervisor_->StatusOf("x")->address, "host:1");
}

TEST_F(SupervisorTest, KilledChildIsReportedAndStartedAgain) {
  supervisor_->Want("x", Script("echo host:1 > $1; exec sleep 100"));
  ASSERT_TRUE(Eventually([&] { return Is(State::kReady); }));
  const pid_t pid = supervisor_->StatusOf("x")->pid;
  ::kill(pid, SIGKILL);
  ASSERT_TRUE(Eventually([&] {
    const auto status = supervisor_->StatusOf("x");
    return status->state == State::kReady && status->pid != pid;
  }));
  EXPECT_EQ(supervisor_->StatusOf("x")->restarts, 1);
  EXPECT_EQ(Deaths(), "x ");
}

TEST_F(SupervisorTest, ChildThatNeverServesIsGivenUp) {
  ProcessSpec spec = Script("echo model is corrupt >&2; exit 3");
  spec.start_failures_max = 3;
  supervisor_->Want("x", spec);
  ASSERT_TRUE(Eventually([&] { return Is(State::kFailed); }));
  EXPECT_EQ(supervisor_->StatusOf("x")->problem,
            "exit code 3: model is corrupt");
  EXPECT_EQ(Deaths(), "x x x ");
}

TEST_F(SupervisorTest, StoppedChildIsNotADeath) {
  supervisor_->Want("x", Script("echo host:1 > $1; exec sleep 100"));
  ASSERT_TRUE(Eventually([&] { return Is(State::kReady); }));
  supervisor_->Unwant("x");
  ASSERT_TRUE(
      Eventually([&] { return !supervisor_->StatusOf("x").has_value(); }));
  EXPECT_EQ(Deaths(), "");
}

TEST_F(SupervisorTest, ChildThatIgnoresSigtermIsKilled) {
  supervisor_->Want(
      "x", Script("trap '' TERM; echo host:1 > $1; while :; do sleep 0.1; "
                  "done"));
  ASSERT_TRUE(Eventually([&] { return Is(State::kReady); }));
  supervisor_->Unwant("x");
  EXPECT_TRUE(
      Eventually([&] { return !supervisor_->StatusOf("x").has_value(); }));
}

TEST_F(SupervisorTest, MissingProgramIsNamed) {
  ProcessSpec spec = Script("");
  spec.argv = {folder_ + "/none"};
  spec.start_failures_max = 1;
  supervisor_->Want("x", spec);
  ASSERT_TRUE(Eventually([&] { return Is(State::kFailed); }));
  EXPECT_TRUE(absl::StrContains(supervisor_->StatusOf("x")->problem,
                                "cannot execute the program"));
}

TEST_F(SupervisorTest, ChildrenStopWithTheSupervisor) {
  supervisor_->Want("x", Script("echo host:1 > $1; exec sleep 100"));
  ASSERT_TRUE(Eventually([&] { return Is(State::kReady); }));
  const pid_t pid = supervisor_->StatusOf("x")->pid;
  supervisor_ = nullptr;
  EXPECT_NE(::kill(pid, 0), 0);
}

}  // namespace
}  // namespace onegrid::controller
