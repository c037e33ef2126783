// Records, cancels and watches pipeline runs. Thread-safe.
#ifndef SERVICES_CONTROLLER_PIPELINE_SERVICE_H_
#define SERVICES_CONTROLLER_PIPELINE_SERVICE_H_

#include <functional>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/onegrid/v1/pipeline.pb.h"
#include "services/controller/inference_runner.h"
#include "services/controller/registry.h"

namespace onegrid::controller {

// Logic of PipelineService; errors as in pipeline.proto. The steps are taken
// by PipelineDriver.
class PipelineService {
 public:
  PipelineService(const ControllerContext* context,
                  const InferenceRunner* runner)
      : context_(context), runner_(runner) {}

  absl::StatusOr<v1::PipelineRun> CreatePipelineRun(
      const v1::CreatePipelineRunRequest& request);
  absl::StatusOr<v1::PipelineRun> GetPipelineRun(
      const v1::GetPipelineRunRequest& request);
  absl::StatusOr<v1::ListPipelineRunsResponse> ListPipelineRuns(
      const v1::ListPipelineRunsRequest& request);
  absl::StatusOr<v1::PipelineRun> CancelPipelineRun(
      const v1::CancelPipelineRunRequest& request);

  // Calls `send` for each event, until it returns false, `gone` says so, or
  // the named resource has ended and all its events are sent.
  absl::Status WatchEvents(const v1::WatchEventsRequest& request,
                           absl::FunctionRef<bool(const v1::Event&)> send,
                           const std::function<bool()>& gone);

 private:
  const ControllerContext* context_;
  const InferenceRunner* runner_;
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_PIPELINE_SERVICE_H_
