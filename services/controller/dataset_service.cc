#include "services/controller/dataset_service.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/onegrid/v1/evaluation.pb.h"
#include "proto/onegrid/v1/pipeline.pb.h"
#include "proto/onegrid/v1/tuning.pb.h"
#include "services/common/error_info.h"
#include "services/model/dataset_format.h"

namespace onegrid::controller {
namespace {

// Dropped lines that a dataset lists.
constexpr int64_t kDroppedListed = 20;

// The enum begins with one that says nothing.
std::optional<model::DataFormat> FormatOf(v1::DatasetFormat format) {
  if (format == v1::DATASET_FORMAT_UNSPECIFIED) return std::nullopt;
  return static_cast<model::DataFormat>(format - 1);
}

v1::DatasetFormat ToProto(model::DataFormat format) {
  return static_cast<v1::DatasetFormat>(static_cast<int>(format) + 1);
}
static_assert(v1::PROMPT_COMPLETION ==
              static_cast<int>(model::DataFormat::kPromptCompletion) + 1);
static_assert(v1::MESSAGES ==
              static_cast<int>(model::DataFormat::kMessages) + 1);
static_assert(v1::PLAIN_TEXT == static_cast<int>(model::DataFormat::kText) + 1);
static_assert(v1::ALPACA == static_cast<int>(model::DataFormat::kAlpaca) + 1);
static_assert(v1::SHAREGPT ==
              static_cast<int>(model::DataFormat::kShareGpt) + 1);

// The schema error of a split for a reader's error, without the store's paths.
absl::Status SplitError(const char* split, const absl::Status& status) {
  std::map<std::string, std::string> metadata = common::ErrorMetadata(status);
  metadata["split"] = split;
  metadata.emplace("problem", status.message());
  metadata.erase("file");
  metadata.erase("path");
  const std::string where =
      metadata.count("line") ? absl::StrCat(", line ", metadata["line"]) : "";
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "DATASET_SCHEMA_INVALID",
      absl::StrCat("split ", split, where, ": ", metadata["problem"]),
      metadata);
}

// "datasets/{id}" that a job uses; empty for other resources.
std::string DatasetOf(const google::protobuf::Message& resource) {
  if (const auto* job = dynamic_cast<const v1::TuningJob*>(&resource)) {
    return job->dataset();
  }
  if (const auto* job = dynamic_cast<const v1::Evaluation*>(&resource)) {
    return job->dataset();
  }
  if (const auto* run = dynamic_cast<const v1::PipelineRun*>(&resource)) {
    return run->tuning_job().dataset();
  }
  return "";
}

absl::Status CheckUnused(StoreTransaction& transaction,
                         const std::string& dataset) {
  for (const char* collection : {"tuningJobs", "evaluations", "pipelineRuns"}) {
    ASSIGN_OR_RETURN(const std::vector<ResourceRow> rows,
                     transaction.List(collection, 0, -1));
    for (const ResourceRow& row : rows) {
      if (IsFinal(static_cast<v1::JobState>(row.state))) continue;
      ASSIGN_OR_RETURN(const std::unique_ptr<google::protobuf::Message> job,
                       LoadAny(transaction, row.name));
      if (DatasetOf(*job) != dataset) continue;
      return common::MakeError(absl::StatusCode::kFailedPrecondition,
                               "RESOURCE_IN_USE",
                               absl::StrCat(row.name, " uses ", dataset),
                               {{"name", dataset}, {"user", row.name}});
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status DatasetService::ReadSplit(const char* split,
                                       const v1::Dataset& dataset,
                                       v1::DatasetSplit* info) {
  const std::string& sha256 = info->artifact().sha256();
  const absl::StatusOr<int64_t> size = context_->blobs->SizeOf(sha256);
  if (!size.ok()) {
    return common::MakeError(
        absl::StatusCode::kFailedPrecondition, "ARTIFACT_MISSING",
        absl::StrCat("the blob of split ", split, " was not uploaded"),
        {{"split", split}, {"sha256", sha256}});
  }
  info->mutable_artifact()->set_size_bytes(*size);
  model::ReadOptions options;
  options.format = FormatOf(dataset.format());
  options.drop_invalid = dataset.drop_invalid();
  const absl::StatusOr<model::RecordFile> file =
      model::ReadRecords(context_->blobs->BlobPath(sha256), options);
  if (!file.ok()) return SplitError(split, file.status());
  for (const model::DroppedLine& dropped : file->dropped) {
    if (info->first_dropped_size() == kDroppedListed) break;
    v1::DroppedLine* line = info->add_first_dropped();
    line->set_line(dropped.line);
    line->set_problem(dropped.problem);
  }
  if (file->records.empty()) {
    std::string problem = "empty";
    if (info->first_dropped_size() > 0) {
      const v1::DroppedLine& first = info->first_dropped(0);
      problem = absl::StrCat("nothing but lines to drop, the first line ",
                             first.line(), ": ", first.problem());
    }
    return common::MakeError(absl::StatusCode::kInvalidArgument,
                             "DATASET_SCHEMA_INVALID",
                             absl::StrCat("split ", split, " is ", problem),
                             {{"split", split}, {"problem", problem}});
  }
  info->set_format(ToProto(*file->format));
  info->set_examples(static_cast<int64_t>(file->records.size()));
  info->set_dropped(static_cast<int64_t>(file->dropped.size()));
  info->set_conversations(
      std::count_if(file->records.begin(), file->records.end(),
                    [](const model::Record& record) {
                      return record.kind == model::Record::Kind::kChat;
                    }));
  return absl::OkStatus();
}

absl::StatusOr<v1::Dataset> DatasetService::CreateDataset(
    const v1::CreateDatasetRequest& request) {
  CreateCall call;
  call.id = request.dataset_id();
  call.request_id = request.request_id();
  call.request = &request;
  call.validate_only = request.validate_only();
  v1::Dataset dataset;
  dataset.set_display_name(request.dataset().display_name());
  if (!v1::DatasetFormat_IsValid(request.dataset().format())) {
    return InvalidField("format", absl::StrCat(request.dataset().format()),
                        "a DatasetFormat");
  }
  dataset.set_format(request.dataset().format());
  dataset.set_drop_invalid(request.dataset().drop_invalid());
  *dataset.mutable_train()->mutable_artifact() =
      request.dataset().train().artifact();
  *dataset.mutable_validation()->mutable_artifact() =
      request.dataset().validation().artifact();
  *dataset.mutable_test()->mutable_artifact() =
      request.dataset().test().artifact();
  // Reading takes long, so it is not done under the store's lock. A replayed
  // call reads the same bytes again, to the same end.
  RETURN_IF_ERROR(ReadSplit("train", dataset, dataset.mutable_train()));
  RETURN_IF_ERROR(
      ReadSplit("validation", dataset, dataset.mutable_validation()));
  RETURN_IF_ERROR(ReadSplit("test", dataset, dataset.mutable_test()));
  return Create<v1::Dataset>(
      *context_, call, [&](StoreTransaction&) -> absl::StatusOr<v1::Dataset> {
        return dataset;
      });
}

absl::StatusOr<v1::Dataset> DatasetService::GetDataset(
    const v1::GetDatasetRequest& request) {
  return Get<v1::Dataset>(*context_, request.name());
}

absl::StatusOr<v1::ListDatasetsResponse> DatasetService::ListDatasets(
    const v1::ListDatasetsRequest& request) {
  v1::ListDatasetsResponse response;
  ASSIGN_OR_RETURN(
      *response.mutable_next_page_token(),
      List<v1::Dataset>(*context_, request.page_size(), request.page_token(),
                        [&] { return response.add_datasets(); }));
  return response;
}

absl::StatusOr<v1::DeleteDatasetResponse> DatasetService::DeleteDataset(
    const v1::DeleteDatasetRequest& request) {
  RETURN_IF_ERROR(
      context_->Commit([&](StoreTransaction& transaction) -> absl::Status {
        ASSIGN_OR_RETURN(const v1::Dataset dataset,
                         Load<v1::Dataset>(transaction, request.name()));
        RETURN_IF_ERROR(CheckEtag(dataset, request.etag()));
        RETURN_IF_ERROR(CheckUnused(transaction, request.name()));
        RETURN_IF_ERROR(AppendResourceEvent(*context_, transaction, dataset,
                                            "deleted",
                                            /*progress_only=*/false));
        return transaction.Erase(request.name());
      }));
  return v1::DeleteDatasetResponse();
}

}  // namespace onegrid::controller
