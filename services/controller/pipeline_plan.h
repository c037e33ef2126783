// What a pipeline run does next, as a pure function of the run and of the
// resource that its current step made. Thread-safe.
#ifndef SERVICES_CONTROLLER_PIPELINE_PLAN_H_
#define SERVICES_CONTROLLER_PIPELINE_PLAN_H_

#include <string>

#include "absl/strings/string_view.h"
#include "proto/onegrid/v1/pipeline.pb.h"

namespace onegrid::controller {

// The resource of the current step. A deployment counts as SUCCEEDED once it
// serves, an EQUIVALENCE evaluation as FAILED if its verdict is.
struct StepChild {
  bool exists = false;
  v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
};

enum class PipelineAction {
  // Nothing until the child changes.
  kWait,
  // QUEUED -> RUNNING.
  kStartRun,
  // The step is QUEUED and may run: record that it does.
  kBeginStep,
  // Step "validate" runs: look at the inputs.
  kCheckInputs,
  kCreateChild,
  kCancelChild,
  // The step's work is done: record it.
  kEndStep,
  // The child failed: so do the step and the run.
  kFailRun,
  // The run was cancelled and nothing of it runs any more.
  kEndCancelled,
  // Every step is done.
  kSucceedRun,
};

struct PipelinePlan {
  PipelineAction action = PipelineAction::kWait;
  // Index of the current step; steps_size() when all are done.
  int step = 0;
};

// The steps of a new run, all QUEUED, with the names of their resources:
// validate, tune, export, verify, [evaluate_base], evaluate_served, [deploy].
// REQUIRES: run.name is set.
void AddSteps(v1::PipelineRun* run);

// Index of the first step that is not SUCCEEDED.
int CurrentStep(const v1::PipelineRun& run);

// The next action. `child` is that of CurrentStep(run).
PipelinePlan PlanPipeline(const v1::PipelineRun& run, const StepChild& child);

absl::string_view PipelineActionName(PipelineAction action);

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_PIPELINE_PLAN_H_
