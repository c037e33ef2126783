// Reads scenarios of commands and expected outcomes and plays them against
// the controller's pure functions: ApplyJobEvent and PlanPipeline.
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/controller/job_state.h"
#include "services/controller/pipeline_plan.h"

namespace onegrid::controller {
namespace {

struct Line {
  int number = 0;
  std::string command;
  std::string expected;
};

struct Scenario {
  std::string title;
  std::vector<Line> lines;
};

std::vector<Scenario> ReadScenarios(const std::string& path) {
  std::vector<Scenario> scenarios;
  std::ifstream in(path);
  EXPECT_TRUE(in.good()) << path;
  std::string text;
  for (int number = 1; std::getline(in, text); ++number) {
    absl::string_view line = absl::StripAsciiWhitespace(text);
    if (line.empty() || line[0] == '#') continue;
    if (absl::ConsumePrefix(&line, "scenario ")) {
      scenarios.push_back({std::string(line), {}});
      continue;
    }
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(line, absl::MaxSplits("->", 1));
    scenarios.back().lines.push_back(
        {number, std::string(absl::StripAsciiWhitespace(parts.first)),
         std::string(absl::StripAsciiWhitespace(parts.second))});
  }
  return scenarios;
}

JobEvent ParseEvent(const std::string& name) {
  for (const JobEvent event :
       {JobEvent::kStart, JobEvent::kSucceed, JobEvent::kFail,
        JobEvent::kFailRetriable, JobEvent::kLoseWorker, JobEvent::kCancel}) {
    if (JobEventName(event) == name) return event;
  }
  ADD_FAILURE() << "no event " << name;
  return JobEvent::kStart;
}

std::string DescribeJob(const absl::StatusOr<JobChange>& change) {
  if (!change.ok()) {
    return absl::StrCat("refused ", common::ErrorReason(change.status()));
  }
  std::string text = absl::StrCat(v1::JobState_Name(change->facts.state),
                                  " epoch=", change->facts.epoch);
  for (const JobEffect effect : change->effects) {
    absl::StrAppend(&text, " ", JobEffectName(effect));
  }
  if (change->attempts_exhausted) absl::StrAppend(&text, " exhausted");
  return text;
}

TEST(ScenarioTest, Jobs) {
  const auto scenarios = ReadScenarios("tests/scenario/job_scenarios.txt");
  EXPECT_GE(scenarios.size(), 10u);
  for (const Scenario& scenario : scenarios) {
    JobFacts facts;
    for (const Line& line : scenario.lines) {
      absl::string_view command = line.command;
      if (absl::ConsumePrefix(&command, "job max_attempts=")) {
        ASSERT_TRUE(absl::SimpleAtoi(command, &facts.max_attempts));
        continue;
      }
      const absl::StatusOr<JobChange> change =
          ApplyJobEvent(facts, ParseEvent(line.command));
      EXPECT_EQ(DescribeJob(change), line.expected)
          << scenario.title << ", line " << line.number;
      if (change.ok()) facts = change->facts;
    }
  }
}

// Carries out actions as the driver does, on a run in memory.
class PipelineStage {
 public:
  explicit PipelineStage(const std::string& flags) {
    run_.set_name("pipelineRuns/r");
    run_.set_state(v1::QUEUED);
    run_.set_evaluate_base(flags.find("evaluate_base") != std::string::npos);
    if (flags.find("deployment") != std::string::npos) {
      run_.set_deployment_id("d");
    }
  }

  void SetChild(const std::string& state) {
    ASSERT_TRUE(v1::JobState_Parse(state, &child_.state)) << state;
  }

  void EndValidation() { EndStep(v1::SUCCEEDED); }
  void Cancel() { run_.set_state(v1::CANCELLING); }

  std::string Next() {
    const PipelinePlan plan = PlanPipeline(run_, child_);
    const bool has_step = plan.step < run_.steps_size() &&
                          plan.action != PipelineAction::kStartRun &&
                          !IsFinal(run_.state());
    std::string text(PipelineActionName(plan.action));
    if (has_step) absl::StrAppend(&text, " ", run_.steps(plan.step).id());
    Do(plan.action);
    return text;
  }

 private:
  void EndStep(v1::JobState state) {
    run_.mutable_steps(CurrentStep(run_))->set_state(state);
    child_ = StepChild();
  }

  void Do(PipelineAction action) {
    switch (action) {
      case PipelineAction::kWait:
      case PipelineAction::kCheckInputs:
        break;
      case PipelineAction::kStartRun:
        AddSteps(&run_);
        run_.set_state(v1::RUNNING);
        break;
      case PipelineAction::kBeginStep:
        run_.mutable_steps(CurrentStep(run_))->set_state(v1::RUNNING);
        break;
      case PipelineAction::kCreateChild:
        child_ = {true, v1::QUEUED};
        break;
      case PipelineAction::kCancelChild:
        child_.state = v1::CANCELLING;
        break;
      case PipelineAction::kEndStep:
        EndStep(v1::SUCCEEDED);
        break;
      case PipelineAction::kFailRun:
        EndStep(v1::FAILED);
        run_.set_state(v1::FAILED);
        break;
      case PipelineAction::kEndCancelled:
        run_.set_state(v1::CANCELLED);
        break;
      case PipelineAction::kSucceedRun:
        run_.set_state(v1::SUCCEEDED);
        break;
    }
  }

  v1::PipelineRun run_;
  StepChild child_;
};

TEST(ScenarioTest, Pipelines) {
  const auto scenarios = ReadScenarios("tests/scenario/pipeline_scenarios.txt");
  EXPECT_GE(scenarios.size(), 7u);
  for (const Scenario& scenario : scenarios) {
    PipelineStage stage("");
    for (const Line& line : scenario.lines) {
      absl::string_view command = line.command;
      if (absl::ConsumePrefix(&command, "run")) {
        stage = PipelineStage(std::string(command));
      } else if (absl::ConsumePrefix(&command, "child ")) {
        stage.SetChild(std::string(command));
      } else if (command == "inputs ok") {
        stage.EndValidation();
      } else if (command == "cancel") {
        stage.Cancel();
      } else if (command == "next") {
        EXPECT_EQ(stage.Next(), line.expected)
            << scenario.title << ", line " << line.number;
      } else {
        // A crash loses nothing: all state is in the run and the child.
        EXPECT_EQ(command, "crash") << "line " << line.number;
      }
    }
  }
}

}  // namespace
}  // namespace onegrid::controller
