#include "client/cli/api.h"

#include <google/protobuf/util/json_util.h>

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/error_info.h"

namespace onegrid::cli {
namespace {

// How to get one and list all resources of a collection.
struct Collection {
  std::function<absl::StatusOr<MessagePtr>(Api&, const std::string&)> get;
  std::function<absl::StatusOr<std::vector<MessagePtr>>(Api&)> list;
};

template <typename Resource, typename GetRequest, typename ListRequest,
          typename ListResponse, typename Stub>
Collection MakeCollection(
    std::unique_ptr<Stub> Api::* stub,
    grpc::Status (Stub::*get)(grpc::ClientContext*, const GetRequest&,
                              Resource*),
    grpc::Status (Stub::*list)(grpc::ClientContext*, const ListRequest&,
                               ListResponse*),
    const google::protobuf::RepeatedPtrField<Resource>& (ListResponse::*items)()
        const) {
  Collection collection;
  collection.get = [=](Api& api,
                       const std::string& name) -> absl::StatusOr<MessagePtr> {
    GetRequest request;
    request.set_name(name);
    absl::StatusOr<Resource> found = Call(*(api.*stub), get, request);
    if (!found.ok()) return found.status();
    return std::make_unique<Resource>(*std::move(found));
  };
  collection.list = [=](Api& api) -> absl::StatusOr<std::vector<MessagePtr>> {
    std::vector<MessagePtr> all;
    ListRequest request;
    do {
      absl::StatusOr<ListResponse> page = Call(*(api.*stub), list, request);
      if (!page.ok()) return page.status();
      for (const Resource& item : ((*page).*items)()) {
        all.push_back(std::make_unique<Resource>(item));
      }
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    return all;
  };
  return collection;
}

const std::map<std::string, Collection>& Collections() {
  static const auto& collections = *new std::map<std::string, Collection>{
      {"datasets",
       MakeCollection(&Api::datasets, &v1::DatasetService::Stub::GetDataset,
                      &v1::DatasetService::Stub::ListDatasets,
                      &v1::ListDatasetsResponse::datasets)},
      {"baseModels", MakeCollection(&Api::base_models,
                                    &v1::BaseModelService::Stub::GetBaseModel,
                                    &v1::BaseModelService::Stub::ListBaseModels,
                                    &v1::ListBaseModelsResponse::base_models)},
      {"tuningJobs",
       MakeCollection(&Api::tuning, &v1::TuningService::Stub::GetTuningJob,
                      &v1::TuningService::Stub::ListTuningJobs,
                      &v1::ListTuningJobsResponse::tuning_jobs)},
      {"exports",
       MakeCollection(&Api::exports, &v1::ExportService::Stub::GetExport,
                      &v1::ExportService::Stub::ListExports,
                      &v1::ListExportsResponse::exports)},
      {"evaluations",
       MakeCollection(&Api::evaluations,
                      &v1::EvaluationService::Stub::GetEvaluation,
                      &v1::EvaluationService::Stub::ListEvaluations,
                      &v1::ListEvaluationsResponse::evaluations)},
      {"deployments",
       MakeCollection(&Api::deployments,
                      &v1::DeploymentService::Stub::GetDeployment,
                      &v1::DeploymentService::Stub::ListDeployments,
                      &v1::ListDeploymentsResponse::deployments)},
      {"pipelineRuns",
       MakeCollection(&Api::pipelines,
                      &v1::PipelineService::Stub::GetPipelineRun,
                      &v1::PipelineService::Stub::ListPipelineRuns,
                      &v1::ListPipelineRunsResponse::pipeline_runs)},
  };
  return collections;
}

absl::StatusOr<const Collection*> FindCollection(const std::string& name) {
  const auto found = Collections().find(name);
  if (found == Collections().end()) {
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "UNKNOWN_COLLECTION",
        absl::StrCat("\"", name, "\" is not a collection; known: ",
                     absl::StrJoin(CollectionNames(), ", ")),
        {{"collection", name}});
  }
  return &found->second;
}

}  // namespace

Api::Api(const std::shared_ptr<grpc::Channel>& shared_channel)
    : channel(shared_channel),
      datasets(v1::DatasetService::NewStub(channel)),
      base_models(v1::BaseModelService::NewStub(channel)),
      tuning(v1::TuningService::NewStub(channel)),
      exports(v1::ExportService::NewStub(channel)),
      evaluations(v1::EvaluationService::NewStub(channel)),
      deployments(v1::DeploymentService::NewStub(channel)),
      pipelines(v1::PipelineService::NewStub(channel)) {}

absl::StatusOr<MessagePtr> GetResource(Api& api, const std::string& name) {
  absl::StatusOr<const Collection*> collection =
      FindCollection(name.substr(0, name.find('/')));
  if (!collection.ok()) return collection.status();
  return (*collection)->get(api, name);
}

absl::StatusOr<std::vector<MessagePtr>> ListResources(
    Api& api, const std::string& collection) {
  absl::StatusOr<const Collection*> found = FindCollection(collection);
  if (!found.ok()) return found.status();
  return (*found)->list(api);
}

std::vector<std::string> CollectionNames() {
  std::vector<std::string> names;
  for (const auto& entry : Collections()) names.push_back(entry.first);
  return names;
}

absl::Status CancelResource(Api& api, const std::string& name) {
  const std::string collection = name.substr(0, name.find('/'));
  if (collection == "tuningJobs") {
    v1::CancelTuningJobRequest request;
    request.set_name(name);
    return Call(*api.tuning, &v1::TuningService::Stub::CancelTuningJob, request)
        .status();
  }
  if (collection == "pipelineRuns") {
    v1::CancelPipelineRunRequest request;
    request.set_name(name);
    return Call(*api.pipelines, &v1::PipelineService::Stub::CancelPipelineRun,
                request)
        .status();
  }
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "NOT_CANCELLABLE",
      absl::StrCat("only tuningJobs/ and pipelineRuns/ can be cancelled, not ",
                   name),
      {{"name", name}});
}

std::string ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string text;
  // Fails only for messages with invalid Any contents; ours have none.
  if (!google::protobuf::util::MessageToJsonString(message, &text, options)
           .ok()) {
    return message.ShortDebugString();
  }
  return text;
}

}  // namespace onegrid::cli
