// Queues imports of checkpoints. Thread-safe.
#ifndef SERVICES_CONTROLLER_BASE_MODEL_SERVICE_H_
#define SERVICES_CONTROLLER_BASE_MODEL_SERVICE_H_

#include "absl/status/statusor.h"
#include "proto/onegrid/v1/base_model.pb.h"
#include "services/controller/registry.h"

namespace onegrid::controller {

// Logic of BaseModelService; errors as in base_model.proto.
class BaseModelService {
 public:
  explicit BaseModelService(const ControllerContext* context)
      : context_(context) {}

  absl::StatusOr<v1::BaseModel> CreateBaseModel(
      const v1::CreateBaseModelRequest& request);
  absl::StatusOr<v1::BaseModel> GetBaseModel(
      const v1::GetBaseModelRequest& request);
  absl::StatusOr<v1::ListBaseModelsResponse> ListBaseModels(
      const v1::ListBaseModelsRequest& request);

 private:
  const ControllerContext* context_;
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_BASE_MODEL_SERVICE_H_
