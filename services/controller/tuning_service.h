// Queues and cancels tuning jobs. Thread-safe.
#ifndef SERVICES_CONTROLLER_TUNING_SERVICE_H_
#define SERVICES_CONTROLLER_TUNING_SERVICE_H_

#include <string>

#include "absl/status/statusor.h"
#include "proto/onegrid/v1/tuning.pb.h"
#include "services/controller/registry.h"

namespace onegrid::controller {

// Logic of TuningService; errors as in tuning.proto.
class TuningService {
 public:
  explicit TuningService(const ControllerContext* context)
      : context_(context) {}

  // `parent` is the pipeline run that asks, or empty.
  absl::StatusOr<v1::TuningJob> CreateTuningJob(
      const v1::CreateTuningJobRequest& request,
      const std::string& parent = "");
  absl::StatusOr<v1::TuningJob> GetTuningJob(
      const v1::GetTuningJobRequest& request);
  absl::StatusOr<v1::ListTuningJobsResponse> ListTuningJobs(
      const v1::ListTuningJobsRequest& request);
  absl::StatusOr<v1::TuningJob> CancelTuningJob(
      const v1::CancelTuningJobRequest& request);

 private:
  const ControllerContext* context_;
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_TUNING_SERVICE_H_
