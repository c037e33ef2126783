// Creating, loading, listing and moving resources, in the AIP manner: ids,
// request_id idempotence, etags, page tokens. Every function that takes a
// transaction writes through it only; nothing is visible before its commit.
#ifndef SERVICES_CONTROLLER_REGISTRY_H_
#define SERVICES_CONTROLLER_REGISTRY_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/message.h"
#include "proto/onegrid/v1/worker.pb.h"
#include "services/common/error_info.h"
#include "services/controller/blob_store.h"
#include "services/controller/change_signal.h"
#include "services/controller/job_state.h"
#include "services/controller/resource.h"
#include "services/controller/store.h"

namespace onegrid::controller {

// What the services share. The pointees outlive every service. Thread-safe.
struct ControllerContext {
  Store* store = nullptr;
  BlobStore* blobs = nullptr;
  ChangeSignal* changes = nullptr;
  std::function<absl::Time()> now;
  // How long an attempt lives without a heartbeat.
  absl::Duration lease = absl::Seconds(15);

  // Store::Update, then wakes those who wait for changes.
  absl::Status Commit(
      absl::FunctionRef<absl::Status(StoreTransaction&)> body) const;
};

// How a resource comes to be.
struct CreateCall {
  // Chosen by the client; one is made up when empty.
  std::string id;
  std::string request_id;
  // The whole request; what request_id stands for.
  const google::protobuf::Message* request = nullptr;
  bool validate_only = false;
  // The pipeline run that makes it, or empty.
  std::string parent;
  // Queues a job with the resource.
  bool is_job = false;
  v1::WorkKind kind = v1::WORK_KIND_UNSPECIFIED;
  int max_attempts = 3;
};

// The resource made by an earlier call with the same request_id, or null.
// AlreadyExists (REQUEST_ID_REUSED): that call had another body.
absl::StatusOr<std::unique_ptr<google::protobuf::Message>> FindReplay(
    StoreTransaction& transaction, const std::string& collection,
    const CreateCall& call);

// Names, stamps and inserts `resource`, with its job and its first event.
// InvalidArgument (INVALID_ID, INVALID_REQUEST_ID); AlreadyExists
// (RESOURCE_EXISTS); FailedPrecondition (ARTIFACT_MISSING): a blob that it
// names is not stored.
absl::Status InsertResource(const ControllerContext& context,
                            StoreTransaction& transaction,
                            const CreateCall& call,
                            google::protobuf::Message* resource);

// NotFound (RESOURCE_NOT_FOUND), InvalidArgument (INVALID_RESOURCE_NAME).
absl::StatusOr<std::unique_ptr<google::protobuf::Message>> LoadAny(
    StoreTransaction& transaction, const std::string& name);

// Aborted (ETAG_MISMATCH): `etag` is not empty and not the resource's.
absl::Status CheckEtag(const google::protobuf::Message& resource,
                       const std::string& etag);

// Sets the etag and replaces the stored resource.
absl::Status SaveResource(StoreTransaction& transaction,
                          google::protobuf::Message* resource);

// FailedPrecondition (ARTIFACT_MISSING): the message names a blob that is not
// stored. Otherwise the artifacts learn their file names and media types.
absl::Status RecordArtifacts(const ControllerContext& context,
                             StoreTransaction& transaction,
                             const google::protobuf::Message& message);

// What happened to a job, for TransitionJob.
struct JobUpdate {
  JobEvent event = JobEvent::kStart;
  // For people; empty: made from the event.
  std::string message;
  // With kStart: who took it.
  std::string worker;
  // With kFail, kFailRetriable and kLoseWorker.
  v1::JobError error;
};

// Applies an event to a job: state, error, attempt, times and lease of
// `resource` and its rows, and one event. FailedPrecondition
// (ILLEGAL_TRANSITION).
absl::StatusOr<JobChange> TransitionJob(const ControllerContext& context,
                                        StoreTransaction& transaction,
                                        const JobUpdate& update,
                                        google::protobuf::Message* resource);

// Appends an event about the resource as it is.
absl::Status AppendResourceEvent(const ControllerContext& context,
                                 StoreTransaction& transaction,
                                 const google::protobuf::Message& resource,
                                 const std::string& message,
                                 bool progress_only);

// One page of a collection. InvalidArgument (INVALID_PAGE_SIZE,
// INVALID_PAGE_TOKEN).
absl::StatusOr<std::vector<std::string>> ListPage(
    const ControllerContext& context, const std::string& collection,
    int page_size, const std::string& page_token, std::string* next_token);

// Opaque page tokens over a sequence number.
std::string MakePageToken(absl::string_view collection, int64_t sequence);
absl::StatusOr<int64_t> ParsePageToken(absl::string_view collection,
                                       absl::string_view token);
// 50 for 0, at most 1000. InvalidArgument: negative.
absl::StatusOr<int> CheckPageSize(int page_size);

// InvalidArgument with reason INVALID_FIELD and metadata field, value, range.
absl::Status InvalidField(absl::string_view field, absl::string_view value,
                          absl::string_view range);

// The resource `name` of type T. InvalidArgument: `name` is of another
// collection. NotFound.
template <typename T>
absl::StatusOr<T> Load(StoreTransaction& transaction, const std::string& name) {
  const std::string collection = CollectionOf(T::default_instance());
  if (name.rfind(collection + "/", 0) != 0) {
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "INVALID_RESOURCE_NAME",
        "'" + name + "' is not of the form " + collection + "/{id}",
        {{"name", name}, {"expected", collection + "/{id}"}});
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<google::protobuf::Message> resource,
                   LoadAny(transaction, name));
  return static_cast<const T&>(*resource);
}

template <typename T>
absl::StatusOr<T> Get(const ControllerContext& context,
                      const std::string& name) {
  absl::StatusOr<T> resource;
  RETURN_IF_ERROR(context.store->View([&](StoreTransaction& transaction) {
    resource = Load<T>(transaction, name);
    return absl::OkStatus();
  }));
  return resource;
}

// Calls add() for an empty T of the response for each resource of the page.
template <typename T>
absl::StatusOr<std::string> List(const ControllerContext& context,
                                 int page_size, const std::string& page_token,
                                 absl::FunctionRef<T*()> add) {
  std::string next_token;
  ASSIGN_OR_RETURN(const std::vector<std::string> page,
                   ListPage(context, CollectionOf(T::default_instance()),
                            page_size, page_token, &next_token));
  for (const std::string& data : page) {
    if (!add()->ParseFromString(data)) {
      return absl::DataLossError("a stored resource is corrupt");
    }
  }
  return next_token;
}

// Replays, or builds and inserts. `build` checks the request against the
// stored state and returns the resource without output-only fields.
template <typename T>
absl::StatusOr<T> Create(
    const ControllerContext& context, const CreateCall& call,
    absl::FunctionRef<absl::StatusOr<T>(StoreTransaction&)> build) {
  T created;
  RETURN_IF_ERROR(
      context.Commit([&](StoreTransaction& transaction) -> absl::Status {
        ASSIGN_OR_RETURN(
            const std::unique_ptr<google::protobuf::Message> replay,
            FindReplay(transaction, CollectionOf(created), call));
        if (replay != nullptr) {
          created.CopyFrom(*replay);
          return absl::OkStatus();
        }
        ASSIGN_OR_RETURN(created, build(transaction));
        if (call.validate_only) return absl::OkStatus();
        return InsertResource(context, transaction, call, &created);
      }));
  return created;
}

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_REGISTRY_H_
