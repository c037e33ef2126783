// The gRPC side of the controller: one line per rpc.
#include "services/controller/controller_grpc.h"

#include <functional>
#include <string>
#include <utility>

#include "grpcpp/grpcpp.h"
#include "proto/onegrid/v1/artifact.grpc.pb.h"
#include "proto/onegrid/v1/base_model.grpc.pb.h"
#include "proto/onegrid/v1/dataset.grpc.pb.h"
#include "proto/onegrid/v1/deployment.grpc.pb.h"
#include "proto/onegrid/v1/evaluation.grpc.pb.h"
#include "proto/onegrid/v1/export.grpc.pb.h"
#include "proto/onegrid/v1/pipeline.grpc.pb.h"
#include "proto/onegrid/v1/tuning.grpc.pb.h"
#include "proto/onegrid/v1/worker.grpc.pb.h"
#include "services/common/grpc_status.h"
#include "services/common/log.h"

namespace onegrid::controller {
namespace {

using grpc::ServerContext;

grpc::Status Answer(const char* rpc, const absl::Status& status) {
  if (!status.ok() && !absl::IsCancelled(status)) {
    common::LogWarning("rpc_failed",
                       {{"rpc", rpc}, {"status", status.ToString()}});
  }
  return common::ToGrpc(status);
}

template <typename Response>
grpc::Status Answer(const char* rpc, absl::StatusOr<Response> result,
                    Response* response) {
  if (result.ok()) *response = *std::move(result);
  return Answer(rpc, result.status());
}

class BaseModelServiceGrpc final : public v1::BaseModelService::Service {
 public:
  explicit BaseModelServiceGrpc(BaseModelService* service)
      : service_(service) {}

  grpc::Status CreateBaseModel(ServerContext*,
                               const v1::CreateBaseModelRequest* request,
                               v1::BaseModel* response) override {
    return Answer("CreateBaseModel", service_->CreateBaseModel(*request),
                  response);
  }
  grpc::Status GetBaseModel(ServerContext*,
                            const v1::GetBaseModelRequest* request,
                            v1::BaseModel* response) override {
    return Answer("GetBaseModel", service_->GetBaseModel(*request), response);
  }
  grpc::Status ListBaseModels(ServerContext*,
                              const v1::ListBaseModelsRequest* request,
                              v1::ListBaseModelsResponse* response) override {
    return Answer("ListBaseModels", service_->ListBaseModels(*request),
                  response);
  }

 private:
  BaseModelService* const service_;
};

class DatasetServiceGrpc final : public v1::DatasetService::Service {
 public:
  explicit DatasetServiceGrpc(DatasetService* service) : service_(service) {}

  grpc::Status CreateDataset(ServerContext*,
                             const v1::CreateDatasetRequest* request,
                             v1::Dataset* response) override {
    return Answer("CreateDataset", service_->CreateDataset(*request), response);
  }
  grpc::Status GetDataset(ServerContext*, const v1::GetDatasetRequest* request,
                          v1::Dataset* response) override {
    return Answer("GetDataset", service_->GetDataset(*request), response);
  }
  grpc::Status ListDatasets(ServerContext*,
                            const v1::ListDatasetsRequest* request,
                            v1::ListDatasetsResponse* response) override {
    return Answer("ListDatasets", service_->ListDatasets(*request), response);
  }
  grpc::Status DeleteDataset(ServerContext*,
                             const v1::DeleteDatasetRequest* request,
                             v1::DeleteDatasetResponse* response) override {
    return Answer("DeleteDataset", service_->DeleteDataset(*request), response);
  }

 private:
  DatasetService* const service_;
};

class DeploymentServiceGrpc final : public v1::DeploymentService::Service {
 public:
  explicit DeploymentServiceGrpc(DeploymentService* service)
      : service_(service) {}

  grpc::Status CreateDeployment(ServerContext*,
                                const v1::CreateDeploymentRequest* request,
                                v1::Deployment* response) override {
    return Answer("CreateDeployment", service_->CreateDeployment(*request),
                  response);
  }
  grpc::Status GetDeployment(ServerContext*,
                             const v1::GetDeploymentRequest* request,
                             v1::Deployment* response) override {
    return Answer("GetDeployment", service_->GetDeployment(*request), response);
  }
  grpc::Status ListDeployments(ServerContext*,
                               const v1::ListDeploymentsRequest* request,
                               v1::ListDeploymentsResponse* response) override {
    return Answer("ListDeployments", service_->ListDeployments(*request),
                  response);
  }
  grpc::Status DeleteDeployment(
      ServerContext*, const v1::DeleteDeploymentRequest* request,
      v1::DeleteDeploymentResponse* response) override {
    return Answer("DeleteDeployment", service_->DeleteDeployment(*request),
                  response);
  }

 private:
  DeploymentService* const service_;
};

class EvaluationServiceGrpc final : public v1::EvaluationService::Service {
 public:
  explicit EvaluationServiceGrpc(EvaluationService* service)
      : service_(service) {}

  grpc::Status CreateEvaluation(ServerContext*,
                                const v1::CreateEvaluationRequest* request,
                                v1::Evaluation* response) override {
    return Answer("CreateEvaluation", service_->CreateEvaluation(*request),
                  response);
  }
  grpc::Status GetEvaluation(ServerContext*,
                             const v1::GetEvaluationRequest* request,
                             v1::Evaluation* response) override {
    return Answer("GetEvaluation", service_->GetEvaluation(*request), response);
  }
  grpc::Status ListEvaluations(ServerContext*,
                               const v1::ListEvaluationsRequest* request,
                               v1::ListEvaluationsResponse* response) override {
    return Answer("ListEvaluations", service_->ListEvaluations(*request),
                  response);
  }

 private:
  EvaluationService* const service_;
};

class ExportServiceGrpc final : public v1::ExportService::Service {
 public:
  explicit ExportServiceGrpc(ExportService* service) : service_(service) {}

  grpc::Status CreateExport(ServerContext*,
                            const v1::CreateExportRequest* request,
                            v1::Export* response) override {
    return Answer("CreateExport", service_->CreateExport(*request), response);
  }
  grpc::Status GetExport(ServerContext*, const v1::GetExportRequest* request,
                         v1::Export* response) override {
    return Answer("GetExport", service_->GetExport(*request), response);
  }
  grpc::Status ListExports(ServerContext*,
                           const v1::ListExportsRequest* request,
                           v1::ListExportsResponse* response) override {
    return Answer("ListExports", service_->ListExports(*request), response);
  }

 private:
  ExportService* const service_;
};

class TuningServiceGrpc final : public v1::TuningService::Service {
 public:
  explicit TuningServiceGrpc(TuningService* service) : service_(service) {}

  grpc::Status CreateTuningJob(ServerContext*,
                               const v1::CreateTuningJobRequest* request,
                               v1::TuningJob* response) override {
    return Answer("CreateTuningJob", service_->CreateTuningJob(*request),
                  response);
  }
  grpc::Status GetTuningJob(ServerContext*,
                            const v1::GetTuningJobRequest* request,
                            v1::TuningJob* response) override {
    return Answer("GetTuningJob", service_->GetTuningJob(*request), response);
  }
  grpc::Status ListTuningJobs(ServerContext*,
                              const v1::ListTuningJobsRequest* request,
                              v1::ListTuningJobsResponse* response) override {
    return Answer("ListTuningJobs", service_->ListTuningJobs(*request),
                  response);
  }
  grpc::Status CancelTuningJob(ServerContext*,
                               const v1::CancelTuningJobRequest* request,
                               v1::TuningJob* response) override {
    return Answer("CancelTuningJob", service_->CancelTuningJob(*request),
                  response);
  }

 private:
  TuningService* const service_;
};

class PipelineServiceGrpc final : public v1::PipelineService::Service {
 public:
  explicit PipelineServiceGrpc(PipelineService* service) : service_(service) {}

  grpc::Status CreatePipelineRun(ServerContext*,
                                 const v1::CreatePipelineRunRequest* request,
                                 v1::PipelineRun* response) override {
    return Answer("CreatePipelineRun", service_->CreatePipelineRun(*request),
                  response);
  }
  grpc::Status GetPipelineRun(ServerContext*,
                              const v1::GetPipelineRunRequest* request,
                              v1::PipelineRun* response) override {
    return Answer("GetPipelineRun", service_->GetPipelineRun(*request),
                  response);
  }
  grpc::Status ListPipelineRuns(
      ServerContext*, const v1::ListPipelineRunsRequest* request,
      v1::ListPipelineRunsResponse* response) override {
    return Answer("ListPipelineRuns", service_->ListPipelineRuns(*request),
                  response);
  }
  grpc::Status CancelPipelineRun(ServerContext*,
                                 const v1::CancelPipelineRunRequest* request,
                                 v1::PipelineRun* response) override {
    return Answer("CancelPipelineRun", service_->CancelPipelineRun(*request),
                  response);
  }
  grpc::Status WatchEvents(ServerContext* context,
                           const v1::WatchEventsRequest* request,
                           grpc::ServerWriter<v1::Event>* writer) override {
    return Answer("WatchEvents", service_->WatchEvents(
                                     *request,
                                     [&](const v1::Event& event) {
                                       return writer->Write(event);
                                     },
                                     [&] { return context->IsCancelled(); }));
  }

 private:
  PipelineService* const service_;
};

class ArtifactServiceGrpc final : public v1::ArtifactService::Service {
 public:
  explicit ArtifactServiceGrpc(ArtifactService* service) : service_(service) {}

  grpc::Status FindMissingBlobs(
      ServerContext*, const v1::FindMissingBlobsRequest* request,
      v1::FindMissingBlobsResponse* response) override {
    return Answer("FindMissingBlobs", service_->FindMissingBlobs(*request),
                  response);
  }
  grpc::Status GetArtifact(ServerContext*,
                           const v1::GetArtifactRequest* request,
                           v1::Artifact* response) override {
    return Answer("GetArtifact", service_->GetArtifact(*request), response);
  }
  grpc::Status ListArtifacts(ServerContext*,
                             const v1::ListArtifactsRequest* request,
                             v1::ListArtifactsResponse* response) override {
    return Answer("ListArtifacts", service_->ListArtifacts(*request), response);
  }

 private:
  ArtifactService* const service_;
};

class ByteStreamGrpc final : public v1::ByteStream::Service {
 public:
  explicit ByteStreamGrpc(ArtifactService* service) : service_(service) {}

  grpc::Status Read(ServerContext*, const v1::ReadRequest* request,
                    grpc::ServerWriter<v1::ReadResponse>* writer) override {
    return Answer("Read",
                  service_->Read(*request, [&](const v1::ReadResponse& piece) {
                    return writer->Write(piece);
                  }));
  }
  grpc::Status Write(ServerContext*,
                     grpc::ServerReader<v1::WriteRequest>* reader,
                     v1::WriteResponse* response) override {
    return Answer("Write", service_->Write([&](v1::WriteRequest* piece) {
      return reader->Read(piece);
    }),
                  response);
  }
  grpc::Status QueryWriteStatus(
      ServerContext*, const v1::QueryWriteStatusRequest* request,
      v1::QueryWriteStatusResponse* response) override {
    return Answer("QueryWriteStatus", service_->QueryWriteStatus(*request),
                  response);
  }

 private:
  ArtifactService* const service_;
};

class WorkerServiceGrpc final : public v1::WorkerService::Service {
 public:
  explicit WorkerServiceGrpc(WorkerService* service) : service_(service) {}

  grpc::Status LeaseAttempt(ServerContext* context,
                            const v1::LeaseAttemptRequest* request,
                            v1::LeaseAttemptResponse* response) override {
    return Answer("LeaseAttempt",
                  service_->LeaseAttempt(
                      *request, [&] { return context->IsCancelled(); }),
                  response);
  }
  grpc::Status Heartbeat(ServerContext*, const v1::HeartbeatRequest* request,
                         v1::HeartbeatResponse* response) override {
    return Answer("Heartbeat", service_->Heartbeat(*request), response);
  }
  grpc::Status ReportProgress(ServerContext*,
                              const v1::ReportProgressRequest* request,
                              v1::ReportProgressResponse* response) override {
    return Answer("ReportProgress", service_->ReportProgress(*request),
                  response);
  }
  grpc::Status CommitCheckpoint(
      ServerContext*, const v1::CommitCheckpointRequest* request,
      v1::CommitCheckpointResponse* response) override {
    return Answer("CommitCheckpoint", service_->CommitCheckpoint(*request),
                  response);
  }
  grpc::Status FinishAttempt(ServerContext*,
                             const v1::FinishAttemptRequest* request,
                             v1::FinishAttemptResponse* response) override {
    return Answer("FinishAttempt", service_->FinishAttempt(*request), response);
  }

 private:
  WorkerService* const service_;
};

}  // namespace

std::vector<std::unique_ptr<grpc::Service>> MakeGrpcServices(
    const ControllerServices& services) {
  std::vector<std::unique_ptr<grpc::Service>> out;
  out.push_back(std::make_unique<ByteStreamGrpc>(services.artifacts));
  out.push_back(std::make_unique<ArtifactServiceGrpc>(services.artifacts));
  out.push_back(std::make_unique<BaseModelServiceGrpc>(services.base_models));
  out.push_back(std::make_unique<DatasetServiceGrpc>(services.datasets));
  out.push_back(std::make_unique<TuningServiceGrpc>(services.tuning));
  out.push_back(std::make_unique<ExportServiceGrpc>(services.exports));
  out.push_back(std::make_unique<EvaluationServiceGrpc>(services.evaluations));
  out.push_back(std::make_unique<DeploymentServiceGrpc>(services.deployments));
  out.push_back(std::make_unique<PipelineServiceGrpc>(services.pipelines));
  out.push_back(std::make_unique<WorkerServiceGrpc>(services.workers));
  return out;
}

}  // namespace onegrid::controller
