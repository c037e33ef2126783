// The gRPC services of the controller, as thin adapters of its logic.
#ifndef SERVICES_CONTROLLER_CONTROLLER_GRPC_H_
#define SERVICES_CONTROLLER_CONTROLLER_GRPC_H_

#include <memory>
#include <vector>

#include "grpcpp/impl/codegen/service_type.h"
#include "services/controller/artifact_service.h"
#include "services/controller/base_model_service.h"
#include "services/controller/dataset_service.h"
#include "services/controller/deployment_service.h"
#include "services/controller/evaluation_service.h"
#include "services/controller/export_service.h"
#include "services/controller/pipeline_service.h"
#include "services/controller/tuning_service.h"
#include "services/controller/worker_service.h"

namespace onegrid::controller {

// The logic that the adapters call; it must outlive them.
struct ControllerServices {
  ArtifactService* artifacts = nullptr;
  BaseModelService* base_models = nullptr;
  DatasetService* datasets = nullptr;
  TuningService* tuning = nullptr;
  ExportService* exports = nullptr;
  EvaluationService* evaluations = nullptr;
  DeploymentService* deployments = nullptr;
  PipelineService* pipelines = nullptr;
  WorkerService* workers = nullptr;
};

// One adapter for each service of proto/onegrid/v1 that the controller has.
std::vector<std::unique_ptr<grpc::Service>> MakeGrpcServices(
    const ControllerServices& services);

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_CONTROLLER_GRPC_H_
