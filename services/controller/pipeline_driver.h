// Takes the steps of pipeline runs.
#ifndef SERVICES_CONTROLLER_PIPELINE_DRIVER_H_
#define SERVICES_CONTROLLER_PIPELINE_DRIVER_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/onegrid/v1/pipeline.pb.h"
#include "services/controller/deployment_service.h"
#include "services/controller/evaluation_service.h"
#include "services/controller/export_service.h"
#include "services/controller/pipeline_plan.h"
#include "services/controller/registry.h"
#include "services/controller/tuning_service.h"

namespace onegrid::controller {

// Advances every run by what PlanPipeline says. Each action is one
// transaction and can be repeated, so a crash between two loses nothing. Use
// from one thread.
class PipelineDriver {
 public:
  PipelineDriver(const ControllerContext* context, TuningService* tuning,
                 ExportService* exports, EvaluationService* evaluations,
                 DeploymentService* deployments)
      : context_(context),
        tuning_(tuning),
        exports_(exports),
        evaluations_(evaluations),
        deployments_(deployments) {}

  // Goes on until every run waits. Errors of the store.
  absl::Status Advance();

 private:
  // What is known of the current step's resource.
  struct Child {
    StepChild view;
    v1::JobError error;
  };

  absl::StatusOr<bool> AdvanceRun(const std::string& name);
  absl::StatusOr<Child> LookAtChild(StoreTransaction& transaction,
                                    const v1::PipelineRun& run);
  absl::StatusOr<bool> Act(const v1::PipelineRun& run, const PipelinePlan& plan,
                           const Child& child);
  absl::StatusOr<bool> CheckInputs(const v1::PipelineRun& run, int step);
  absl::Status CreateChild(const v1::PipelineRun& run, int step);
  absl::Status CancelChild(const v1::PipelineRun& run, int step);
  absl::Status MoveStep(const std::string& run, int step, v1::JobState state);
  absl::Status MoveRun(const std::string& run, JobEvent event,
                       const v1::JobError& error);

  const ControllerContext* context_;
  TuningService* tuning_;
  ExportService* exports_;
  EvaluationService* evaluations_;
  DeploymentService* deployments_;
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_PIPELINE_DRIVER_H_
