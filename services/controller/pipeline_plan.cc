#include "services/controller/pipeline_plan.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "services/controller/job_state.h"

namespace onegrid::controller {
namespace {

void AddStep(v1::PipelineRun* run, absl::string_view id,
             absl::string_view resource) {
  v1::PipelineStep* step = run->add_steps();
  step->set_id(std::string(id));
  step->set_resource(std::string(resource));
  step->set_state(v1::QUEUED);
}

PipelineAction PlanStep(const v1::PipelineRun& run,
                        const v1::PipelineStep& step, const StepChild& child) {
  const bool cancelling = run.state() == v1::CANCELLING;
  if (step.state() == v1::QUEUED) {
    return cancelling ? PipelineAction::kEndCancelled
                      : PipelineAction::kBeginStep;
  }
  if (step.resource().empty() || !child.exists) {
    if (cancelling) return PipelineAction::kEndCancelled;
    return step.resource().empty() ? PipelineAction::kCheckInputs
                                   : PipelineAction::kCreateChild;
  }
  switch (child.state) {
    case v1::SUCCEEDED:
      return PipelineAction::kEndStep;
    case v1::FAILED:
    case v1::CANCELLED:
      return cancelling ? PipelineAction::kEndCancelled
                        : PipelineAction::kFailRun;
    case v1::CANCELLING:
      return PipelineAction::kWait;
    default:
      return cancelling ? PipelineAction::kCancelChild : PipelineAction::kWait;
  }
}

}  // namespace

void AddSteps(v1::PipelineRun* run) {
  const absl::string_view id = absl::StripPrefix(run->name(), "pipelineRuns/");
  run->clear_steps();
  AddStep(run, "validate", "");
  AddStep(run, "tune", absl::StrCat("tuningJobs/", id, "-tune"));
  AddStep(run, "export", absl::StrCat("exports/", id, "-export"));
  AddStep(run, "verify", absl::StrCat("evaluations/", id, "-verify"));
  if (run->evaluate_base()) {
    AddStep(run, "evaluate_base", absl::StrCat("evaluations/", id, "-base"));
  }
  AddStep(run, "evaluate_served", absl::StrCat("evaluations/", id, "-served"));
  if (!run->deployment_id().empty()) {
    AddStep(run, "deploy", absl::StrCat("deployments/", run->deployment_id()));
  }
}

int CurrentStep(const v1::PipelineRun& run) {
  int step = 0;
  while (step < run.steps_size() && run.steps(step).state() == v1::SUCCEEDED) {
    ++step;
  }
  return step;
}

PipelinePlan PlanPipeline(const v1::PipelineRun& run, const StepChild& child) {
  PipelinePlan plan;
  plan.step = CurrentStep(run);
  if (IsFinal(run.state())) return plan;
  if (run.state() == v1::QUEUED) {
    plan.action = PipelineAction::kStartRun;
  } else if (plan.step == run.steps_size()) {
    plan.action = run.state() == v1::CANCELLING ? PipelineAction::kEndCancelled
                                                : PipelineAction::kSucceedRun;
  } else {
    plan.action = PlanStep(run, run.steps(plan.step), child);
  }
  return plan;
}

absl::string_view PipelineActionName(PipelineAction action) {
  switch (action) {
    case PipelineAction::kWait:
      return "wait";
    case PipelineAction::kStartRun:
      return "start_run";
    case PipelineAction::kBeginStep:
      return "begin_step";
    case PipelineAction::kCheckInputs:
      return "check_inputs";
    case PipelineAction::kCreateChild:
      return "create_child";
    case PipelineAction::kCancelChild:
      return "cancel_child";
    case PipelineAction::kEndStep:
      return "end_step";
    case PipelineAction::kFailRun:
      return "fail_run";
    case PipelineAction::kEndCancelled:
      return "end_cancelled";
    case PipelineAction::kSucceedRun:
      return "succeed_run";
  }
  return "";
}

}  // namespace onegrid::controller
