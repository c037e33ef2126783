#include "client/cli/jobs.h"

#include <chrono>
#include <filesystem>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/connection.h"
#include "client/cli/progress_printer.h"
#include "services/common/adapter_files.h"
#include "services/common/artifact_client.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::cli {
namespace {

constexpr absl::Duration kReconnectFor = absl::Minutes(1);
constexpr absl::Duration kReconnectPause = absl::Milliseconds(500);

// The error of a resource that ended badly; OK for the others.
absl::Status Outcome(const std::string& name, v1::JobState state,
                     const v1::JobError& error) {
  if (state == v1::FAILED) return common::FromJobError(error);
  if (state == v1::CANCELLED) {
    return absl::CancelledError(absl::StrCat(name, " was cancelled"));
  }
  return absl::OkStatus();
}

template <typename Job>
absl::Status OutcomeOf(const google::protobuf::Message& message) {
  const Job& job = static_cast<const Job&>(message);
  return Outcome(job.name(), job.state(), job.error());
}

absl::Status ResourceOutcome(const google::protobuf::Message& message) {
  const std::string& type = message.GetDescriptor()->name();
  if (type == "BaseModel") return OutcomeOf<v1::BaseModel>(message);
  if (type == "TuningJob") return OutcomeOf<v1::TuningJob>(message);
  if (type == "Export") return OutcomeOf<v1::Export>(message);
  if (type == "Evaluation") return OutcomeOf<v1::Evaluation>(message);
  if (type == "PipelineRun") return OutcomeOf<v1::PipelineRun>(message);
  if (type == "Deployment") {
    const auto& deployment = static_cast<const v1::Deployment&>(message);
    if (deployment.state() == v1::Deployment::FAILED_TO_START) {
      return common::FromJobError(deployment.error());
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::ArtifactRef> Upload(Api& api, const std::string& path,
                                       const std::string& media_type,
                                       const ProgressSink& sink) {
  *sink.out << "  upload " << path << std::endl;
  return common::ArtifactClient(api.channel)
      .Upload(path, std::filesystem::path(path).filename().string(),
              media_type);
}

absl::StatusOr<v1::InitialAdapter> UploadAdapter(Api& api,
                                                 const std::string& path,
                                                 const ProgressSink& sink) {
  ASSIGN_OR_RETURN(const common::AdapterFiles files,
                   common::FindAdapterFiles(path));
  v1::InitialAdapter adapter;
  if (files.config.empty()) {
    ASSIGN_OR_RETURN(*adapter.mutable_tensors(),
                     Upload(api, files.tensors, "application/x-gguf", sink));
    return adapter;
  }
  ASSIGN_OR_RETURN(
      *adapter.mutable_tensors(),
      Upload(api, files.tensors, "application/x-safetensors", sink));
  ASSIGN_OR_RETURN(*adapter.mutable_config(),
                   Upload(api, files.config, "application/json", sink));
  return adapter;
}

absl::Status Download(Api& api, const v1::ArtifactRef& ref,
                      const std::string& path) {
  return common::ArtifactClient(api.channel).Download(ref, path);
}

absl::Status Watch(Api& api, const std::string& name, bool json,
                   const ProgressSink& sink) {
  ProgressPrinter printer(*sink.out, sink.terminal);
  v1::WatchEventsRequest request;
  request.set_name(name);
  absl::Time alive = absl::Now();
  while (true) {
    grpc::ClientContext context;
    auto reader = api.pipelines->WatchEvents(&context, request);
    v1::Event event;
    while (reader->Read(&event)) {
      request.set_after_sequence(event.sequence());
      alive = absl::Now();
      if (json) {
        *sink.out << ToJson(event) << std::endl;
      } else {
        printer.Show(event, alive);
      }
    }
    const grpc::Status status = reader->Finish();
    if (status.ok()) break;
    // A controller that restarts keeps its jobs: watch on from the last event.
    if (status.error_code() != grpc::StatusCode::UNAVAILABLE ||
        absl::Now() - alive > kReconnectFor) {
      printer.Finish();
      return common::FromGrpc(status);
    }
    absl::SleepFor(kReconnectPause);
  }
  printer.Finish();
  return absl::OkStatus();
}

absl::Status WaitFor(Api& api, const std::string& name,
                     const ProgressSink& sink) {
  RETURN_IF_ERROR(Watch(api, name, /*json=*/false, sink));
  ASSIGN_OR_RETURN(const MessagePtr resource, GetResource(api, name));
  return ResourceOutcome(*resource);
}

absl::StatusOr<v1::BaseModel> ImportModel(Api& api, const std::string& id,
                                          const std::string& path, bool reuse,
                                          const ProgressSink& sink) {
  const std::string name = absl::StrCat("baseModels/", id);
  v1::GetBaseModelRequest get;
  get.set_name(name);
  absl::StatusOr<v1::BaseModel> existing =
      Call(*api.base_models, &v1::BaseModelService::Stub::GetBaseModel, get);
  if (!reuse || !existing.ok()) {
    ASSIGN_OR_RETURN(const v1::ArtifactRef source,
                     Upload(api, path, "application/x-gguf", sink));
    v1::CreateBaseModelRequest create;
    create.set_base_model_id(id);
    create.set_request_id(NewRequestId());
    *create.mutable_base_model()->mutable_source() = source;
    create.mutable_base_model()->set_grid(v1::INT4_G32);
    RETURN_IF_ERROR(Call(*api.base_models,
                         &v1::BaseModelService::Stub::CreateBaseModel, create)
                        .status());
  }
  RETURN_IF_ERROR(WaitFor(api, name, sink));
  return Call(*api.base_models, &v1::BaseModelService::Stub::GetBaseModel, get);
}

std::string DescribeSplits(const v1::Dataset& dataset) {
  std::string text;
  for (const auto& [name, split] :
       {std::pair{"train", &dataset.train()},
        std::pair{"validation", &dataset.validation()},
        std::pair{"test", &dataset.test()}}) {
    absl::StrAppend(&text, name, ": ", split->examples(), " examples of ",
                    v1::DatasetFormat_Name(split->format()));
    if (split->first_dropped_size() > 0) {
      const v1::DroppedLine& first = split->first_dropped(0);
      absl::StrAppend(&text, ", ", split->dropped(),
                      " lines dropped, the first line ", first.line(), ": ",
                      first.problem());
    }
    absl::StrAppend(&text, "\n");
  }
  return text;
}

absl::StatusOr<v1::Dataset> CreateDataset(Api& api, const std::string& id,
                                          const DatasetFiles& files, bool reuse,
                                          const ProgressSink& sink) {
  v1::CreateDatasetRequest create;
  create.set_dataset_id(id);
  create.set_request_id(NewRequestId());
  v1::Dataset* dataset = create.mutable_dataset();
  dataset->set_format(files.format);
  dataset->set_drop_invalid(files.drop_invalid);
  for (const auto& [path, split] :
       {std::pair{files.train, dataset->mutable_train()},
        std::pair{files.validation, dataset->mutable_validation()},
        std::pair{files.test, dataset->mutable_test()}}) {
    ASSIGN_OR_RETURN(*split->mutable_artifact(),
                     Upload(api, path, "application/jsonl", sink));
  }
  if (reuse) {
    v1::GetDatasetRequest get;
    get.set_name(absl::StrCat("datasets/", id));
    absl::StatusOr<v1::Dataset> existing =
        Call(*api.datasets, &v1::DatasetService::Stub::GetDataset, get);
    if (existing.ok() &&
        existing->train().artifact().sha256() ==
            dataset->train().artifact().sha256() &&
        existing->test().artifact().sha256() ==
            dataset->test().artifact().sha256()) {
      return existing;
    }
  }
  return Call(*api.datasets, &v1::DatasetService::Stub::CreateDataset, create);
}

absl::StatusOr<ExportFiles> DownloadExport(Api& api, const v1::Export& exported,
                                           const std::string& out_dir) {
  ExportFiles files;
  for (const v1::ExportedArtifact& artifact : exported.artifacts()) {
    const std::string folder = absl::StrCat(
        out_dir, "/",
        absl::AsciiStrToLower(v1::ExportFormat_Name(artifact.format())));
    RETURN_IF_ERROR(common::MakeFolder(folder));
    std::string gguf;
    for (const v1::ArtifactRef& ref : artifact.files()) {
      const std::string path = absl::StrCat(folder, "/", ref.file_name());
      RETURN_IF_ERROR(Download(api, ref, path));
      if (gguf.empty() && absl::EndsWith(path, ".gguf")) gguf = path;
    }
    if (artifact.format() == v1::GGUF) files.gguf = gguf;
    if (artifact.format() == v1::LORA_GGUF) files.adapter_gguf = gguf;
    if (artifact.format() == v1::COMPRESSED_TENSORS) {
      files.compressed_tensors = folder;
    }
  }
  return files;
}

}  // namespace onegrid::cli
