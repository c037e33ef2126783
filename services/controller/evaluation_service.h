// Queues evaluations. Thread-safe.
#ifndef SERVICES_CONTROLLER_EVALUATION_SERVICE_H_
#define SERVICES_CONTROLLER_EVALUATION_SERVICE_H_

#include <string>

#include "absl/status/statusor.h"
#include "proto/onegrid/v1/evaluation.pb.h"
#include "services/controller/registry.h"

namespace onegrid::controller {

// Logic of EvaluationService; errors as in evaluation.proto.
class EvaluationService {
 public:
  explicit EvaluationService(const ControllerContext* context)
      : context_(context) {}

  // `parent` is the pipeline run that asks, or empty.
  absl::StatusOr<v1::Evaluation> CreateEvaluation(
      const v1::CreateEvaluationRequest& request,
      const std::string& parent = "");
  absl::StatusOr<v1::Evaluation> GetEvaluation(
      const v1::GetEvaluationRequest& request);
  absl::StatusOr<v1::ListEvaluationsResponse> ListEvaluations(
      const v1::ListEvaluationsRequest& request);

 private:
  const ControllerContext* context_;
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_EVALUATION_SERVICE_H_
