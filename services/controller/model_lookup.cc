#include "services/controller/model_lookup.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/onegrid/v1/base_model.pb.h"
#include "proto/onegrid/v1/export.pb.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/controller/registry.h"

namespace onegrid::controller {

absl::Status CheckSucceeded(const google::protobuf::Message& job) {
  const v1::JobState state = JobStateOf(job);
  if (state == v1::SUCCEEDED) return absl::OkStatus();
  return common::MakeError(
      absl::StatusCode::kFailedPrecondition, "RESOURCE_NOT_READY",
      absl::StrCat(NameOf(job), " is ", v1::JobState_Name(state),
                   ", not SUCCEEDED"),
      {{"name", NameOf(job)}, {"state", v1::JobState_Name(state)}});
}

absl::StatusOr<std::vector<v1::ArtifactRef>> FindGguf(
    StoreTransaction& transaction, const std::string& model) {
  if (absl::StartsWith(model, "baseModels/")) {
    ASSIGN_OR_RETURN(const v1::BaseModel base,
                     Load<v1::BaseModel>(transaction, model));
    RETURN_IF_ERROR(CheckSucceeded(base));
    return std::vector<v1::ArtifactRef>{base.model()};
  }
  if (!absl::StartsWith(model, "exports/")) {
    return InvalidField("model", model, "baseModels/{id} or exports/{id}");
  }
  ASSIGN_OR_RETURN(const v1::Export made, Load<v1::Export>(transaction, model));
  RETURN_IF_ERROR(CheckSucceeded(made));
  for (const v1::ExportedArtifact& artifact : made.artifacts()) {
    if (artifact.format() != v1::GGUF) continue;
    std::vector<v1::ArtifactRef> files;
    for (const v1::ArtifactRef& file : artifact.files()) {
      if (absl::EndsWith(file.file_name(), ".gguf")) files.push_back(file);
    }
    if (!files.empty()) return files;
  }
  return common::MakeError(absl::StatusCode::kFailedPrecondition, "NO_GGUF",
                           absl::StrCat(model, " has no GGUF"),
                           {{"name", model}});
}

std::string ModelSha256(const std::vector<v1::ArtifactRef>& files) {
  std::vector<std::string> digests;
  for (const v1::ArtifactRef& file : files) digests.push_back(file.sha256());
  return common::Sha256OfModel(digests);
}

}  // namespace onegrid::controller
