// What all resources have in common, read and written through reflection:
// name, etag, state, error, progress, times. Thread-safe on distinct messages.
#ifndef SERVICES_CONTROLLER_RESOURCE_H_
#define SERVICES_CONTROLLER_RESOURCE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/message.h"
#include "google/protobuf/timestamp.pb.h"
#include "proto/onegrid/v1/common.pb.h"

namespace onegrid::controller {

// An empty message of the collection that a name is in ("tuningJobs/t1" ->
// TuningJob). InvalidArgument (INVALID_RESOURCE_NAME): no such collection.
absl::StatusOr<std::unique_ptr<google::protobuf::Message>> NewResource(
    absl::string_view name);

// "tuningJobs" for a TuningJob.
std::string CollectionOf(const google::protobuf::Message& resource);

// The message of `resource`'s field "name".
std::string NameOf(const google::protobuf::Message& resource);
// Number of the enum field "state"; 0 if there is none.
int StateOf(const google::protobuf::Message& resource);
v1::JobState JobStateOf(const google::protobuf::Message& resource);
void SetState(google::protobuf::Message* resource, int state);

// Each does nothing to a resource without the field.
void SetTime(google::protobuf::Message* resource, absl::string_view field,
             absl::Time time);
void SetInt(google::protobuf::Message* resource, absl::string_view field,
            int value);
void SetError(google::protobuf::Message* resource, const v1::JobError& error);
void ClearError(google::protobuf::Message* resource);
void SetProgress(google::protobuf::Message* resource,
                 const v1::Progress& progress);
// Sets the etag to a digest of everything else.
void SetEtag(google::protobuf::Message* resource);

// The resource's progress or error; empty where it has none.
v1::Progress ProgressOf(const google::protobuf::Message& resource);
v1::JobError ErrorOf(const google::protobuf::Message& resource);

// Every ArtifactRef with a digest inside the message, at any depth.
std::vector<v1::ArtifactRef> ArtifactRefsOf(
    const google::protobuf::Message& message);

// Lower-case hex digest that is equal for equal messages.
std::string DigestOf(const google::protobuf::Message& message);

google::protobuf::Timestamp ToTimestamp(absl::Time time);

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_RESOURCE_H_
