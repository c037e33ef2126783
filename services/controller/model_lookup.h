// Finds the files of models that can be served or measured.
#ifndef SERVICES_CONTROLLER_MODEL_LOOKUP_H_
#define SERVICES_CONTROLLER_MODEL_LOOKUP_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "proto/onegrid/v1/common.pb.h"
#include "services/controller/store.h"

namespace onegrid::controller {

// FailedPrecondition (RESOURCE_NOT_READY): the job has not SUCCEEDED.
absl::Status CheckSucceeded(const google::protobuf::Message& job);

// The GGUF of "baseModels/{id}" or "exports/{id}": one file, or its shards in
// order. InvalidArgument: neither. NotFound. FailedPrecondition
// (RESOURCE_NOT_READY, NO_GGUF).
absl::StatusOr<std::vector<v1::ArtifactRef>> FindGguf(
    StoreTransaction& transaction, const std::string& model);

// The digest that an inference server reports of a model of these files.
std::string ModelSha256(const std::vector<v1::ArtifactRef>& files);

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_MODEL_LOOKUP_H_
