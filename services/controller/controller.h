// The controller as a whole: store, services, and the thread that makes what
// is wanted happen.
#ifndef SERVICES_CONTROLLER_CONTROLLER_H_
#define SERVICES_CONTROLLER_CONTROLLER_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/impl/codegen/service_type.h"
#include "services/controller/controller_grpc.h"
#include "services/controller/inference_runner.h"
#include "services/controller/pipeline_driver.h"
#include "services/controller/serving_driver.h"

namespace onegrid::controller {

// How a controller runs.
struct ControllerOptions {
  // The database, the blobs and the uploads live here.
  std::string data_dir;
  // How long an attempt lives without a heartbeat.
  absl::Duration lease = absl::Seconds(15);
  std::function<absl::Time()> now;
};

// Open, Start, serve grpc_services(), Stop. Open recovers the state that a
// killed controller left.
class Controller {
 public:
  // FailedPrecondition (DATA_DIR_IN_USE): another controller has it. Errors
  // of the files and the database.
  static absl::StatusOr<std::unique_ptr<Controller>> Open(
      ControllerOptions options);
  ~Controller();
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  // Starts to act. `runner` must outlive Stop.
  void Start(InferenceRunner* runner);
  // Ends waiting calls and the thread. Idempotent.
  void Stop();

  // Valid after Start.
  const std::vector<std::unique_ptr<grpc::Service>>& grpc_services() const {
    return grpc_services_;
  }
  WorkerService* workers() { return workers_.get(); }
  // Makes the thread look again soon. Thread-safe.
  void Wake() { changes_.Notify(); }

 private:
  explicit Controller(ControllerOptions options);
  absl::Status OpenState();
  void Loop();
  void RunOnce();

  const ControllerOptions options_;
  int lock_fd_ = -1;
  std::unique_ptr<Store> store_;
  std::unique_ptr<BlobStore> blobs_;
  ChangeSignal changes_;
  ControllerContext context_;
  std::unique_ptr<ArtifactService> artifacts_;
  std::unique_ptr<BaseModelService> base_models_;
  std::unique_ptr<DatasetService> datasets_;
  std::unique_ptr<TuningService> tuning_;
  std::unique_ptr<ExportService> exports_;
  std::unique_ptr<EvaluationService> evaluations_;
  std::unique_ptr<WorkerService> workers_;
  std::unique_ptr<DeploymentService> deployments_;
  std::unique_ptr<PipelineService> pipelines_;
  std::unique_ptr<PipelineDriver> pipeline_driver_;
  std::unique_ptr<ServingDriver> serving_driver_;
  std::vector<std::unique_ptr<grpc::Service>> grpc_services_;
  std::thread thread_;
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_CONTROLLER_H_
