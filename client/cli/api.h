// The controller's API as the commands use it: one call, one StatusOr.
#ifndef CLIENT_CLI_API_H_
#define CLIENT_CLI_API_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/onegrid/v1/artifact.grpc.pb.h"
#include "proto/onegrid/v1/base_model.grpc.pb.h"
#include "proto/onegrid/v1/dataset.grpc.pb.h"
#include "proto/onegrid/v1/deployment.grpc.pb.h"
#include "proto/onegrid/v1/evaluation.grpc.pb.h"
#include "proto/onegrid/v1/export.grpc.pb.h"
#include "proto/onegrid/v1/pipeline.grpc.pb.h"
#include "proto/onegrid/v1/tuning.grpc.pb.h"
#include "services/common/grpc_status.h"

namespace onegrid::cli {

// Stubs of every public service of one controller. Thread-safe.
struct Api {
  explicit Api(const std::shared_ptr<grpc::Channel>& channel);

  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::DatasetService::Stub> datasets;
  std::unique_ptr<v1::BaseModelService::Stub> base_models;
  std::unique_ptr<v1::TuningService::Stub> tuning;
  std::unique_ptr<v1::ExportService::Stub> exports;
  std::unique_ptr<v1::EvaluationService::Stub> evaluations;
  std::unique_ptr<v1::DeploymentService::Stub> deployments;
  std::unique_ptr<v1::PipelineService::Stub> pipelines;
};

// Calls a unary method of a stub and turns the outcome into a StatusOr.
template <typename Response, typename Stub, typename Request>
absl::StatusOr<Response> Call(Stub& stub,
                              grpc::Status (Stub::*method)(grpc::ClientContext*,
                                                           const Request&,
                                                           Response*),
                              const Request& request) {
  grpc::ClientContext context;
  Response response;
  const grpc::Status status = (stub.*method)(&context, request, &response);
  if (!status.ok()) return common::FromGrpc(status);
  return response;
}

using MessagePtr = std::unique_ptr<google::protobuf::Message>;

// Any resource by its name, e.g. "tuningJobs/t1".
// InvalidArgument: a name of no known collection.
absl::StatusOr<MessagePtr> GetResource(Api& api, const std::string& name);

// All resources of a collection: "tuningJobs", "datasets", ...
absl::StatusOr<std::vector<MessagePtr>> ListResources(
    Api& api, const std::string& collection);

// Names of the collections, for help texts.
std::vector<std::string> CollectionNames();

// Cancels a tuning job or a pipeline run.
absl::Status CancelResource(Api& api, const std::string& name);

// The message as JSON with the proto's field names and all its fields.
std::string ToJson(const google::protobuf::Message& message);

}  // namespace onegrid::cli

#endif  // CLIENT_CLI_API_H_
