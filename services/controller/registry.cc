#include "services/controller/registry.h"

#include <algorithm>
#include <map>

#include "absl/random/random.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "proto/onegrid/v1/deployment.pb.h"
#include "services/common/grpc_status.h"
#include "services/common/log.h"

namespace onegrid::controller {
namespace {

using google::protobuf::Message;

constexpr int kPageSizeDefault = 50;
constexpr int kPageSizeMax = 1000;
constexpr size_t kIdSizeMax = 63;
constexpr size_t kRequestIdSizeMax = 128;

absl::Status CheckId(absl::string_view id) {
  const bool fits = !id.empty() && id.size() <= kIdSizeMax &&
                    id.find_first_not_of(
                        "abcdefghijklmnopqrstuvwxyz"
                        "0123456789-") == absl::string_view::npos;
  if (fits) return absl::OkStatus();
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "INVALID_ID",
      absl::StrCat("id '", id, "' is not 1 to 63 of [a-z0-9-]"),
      {{"id", std::string(id)}});
}

std::string MakeUpId() {
  thread_local absl::BitGen random;
  return absl::StrFormat("%c%011x", 'a' + absl::Uniform(random, 0, 6),
                         absl::Uniform<uint64_t>(random, 0, 1ull << 44));
}

// The job state that says the same as a deployment's state.
v1::JobState EventStateOf(const Message& resource) {
  if (resource.GetDescriptor() != v1::Deployment::descriptor()) {
    return JobStateOf(resource);
  }
  switch (static_cast<v1::Deployment::State>(StateOf(resource))) {
    case v1::Deployment::STARTING:
      return v1::QUEUED;
    case v1::Deployment::SERVING:
      return v1::RUNNING;
    case v1::Deployment::STOPPING:
      return v1::CANCELLING;
    case v1::Deployment::FAILED_TO_START:
      return v1::FAILED;
    default:
      return v1::JOB_STATE_UNSPECIFIED;
  }
}

absl::StatusOr<std::unique_ptr<Message>> Parse(const ResourceRow& row) {
  ASSIGN_OR_RETURN(std::unique_ptr<Message> resource, NewResource(row.name));
  if (!resource->ParseFromString(row.data)) {
    return common::MakeError(absl::StatusCode::kDataLoss, "STORE_ERROR",
                             absl::StrCat(row.name, " is corrupt"));
  }
  return resource;
}

std::string Describe(const JobUpdate& update, const JobChange& change) {
  if (!update.message.empty()) return update.message;
  switch (update.event) {
    case JobEvent::kStart:
      return absl::StrCat(
          "attempt ", change.facts.epoch, " started",
          update.worker.empty() ? "" : absl::StrCat(" on ", update.worker));
    case JobEvent::kSucceed:
      return change.facts.state == v1::SUCCEEDED ? "succeeded" : "cancelled";
    case JobEvent::kCancel:
      return change.facts.state == v1::CANCELLED ? "cancelled"
                                                 : "asked to cancel";
    case JobEvent::kFail:
    case JobEvent::kFailRetriable:
    case JobEvent::kLoseWorker:
      break;
  }
  if (change.facts.state == v1::CANCELLED) return "cancelled";
  if (change.facts.state == v1::FAILED) {
    return absl::StrCat("failed: ", update.error.message());
  }
  return absl::StrCat("attempt ", change.facts.epoch,
                      " lost, queued again: ", update.error.message());
}

v1::JobError FinalError(const JobUpdate& update, const JobChange& change) {
  if (change.facts.state == v1::CANCELLED) {
    return common::ToJobError(common::MakeError(
        absl::StatusCode::kCancelled, "CANCELLED", "cancelled on request"));
  }
  if (!change.attempts_exhausted) return update.error;
  std::map<std::string, std::string> metadata(update.error.metadata().begin(),
                                              update.error.metadata().end());
  metadata["attempts"] = absl::StrCat(change.facts.epoch);
  metadata["last_reason"] = update.error.reason();
  return common::ToJobError(common::MakeError(
      static_cast<absl::StatusCode>(update.error.code()), "ATTEMPTS_EXHAUSTED",
      absl::StrCat(
          "all ", change.facts.max_attempts,
          " attempts ended early; the last one: ", update.error.message()),
      metadata));
}

}  // namespace

absl::Status ControllerContext::Commit(
    absl::FunctionRef<absl::Status(StoreTransaction&)> body) const {
  RETURN_IF_ERROR(store->Update(body));
  changes->Notify();
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Message>> FindReplay(
    StoreTransaction& transaction, const std::string& collection,
    const CreateCall& call) {
  if (call.request_id.empty()) return nullptr;
  if (call.request_id.size() > kRequestIdSizeMax) {
    return common::MakeError(absl::StatusCode::kInvalidArgument,
                             "INVALID_REQUEST_ID",
                             "request_id is longer than 128 characters");
  }
  ASSIGN_OR_RETURN(const std::optional<RequestRow> request,
                   transaction.FindRequest(collection, call.request_id));
  if (!request.has_value()) return nullptr;
  if (request->digest == DigestOf(*call.request)) {
    return LoadAny(transaction, request->name);
  }
  return common::MakeError(
      absl::StatusCode::kAlreadyExists, "REQUEST_ID_REUSED",
      absl::StrCat("request_id ", call.request_id,
                   " was used with another request, which made ",
                   request->name),
      {{"request_id", call.request_id}, {"name", request->name}});
}

absl::Status InsertResource(const ControllerContext& context,
                            StoreTransaction& transaction,
                            const CreateCall& call, Message* resource) {
  const std::string id = call.id.empty() ? MakeUpId() : call.id;
  RETURN_IF_ERROR(CheckId(id));
  const std::string collection = CollectionOf(*resource);
  ResourceRow row;
  row.name = absl::StrCat(collection, "/", id);
  row.parent = call.parent;
  ASSIGN_OR_RETURN(const std::optional<ResourceRow> taken,
                   transaction.Find(row.name));
  if (taken.has_value()) {
    return common::MakeError(
        absl::StatusCode::kAlreadyExists, "RESOURCE_EXISTS",
        absl::StrCat(row.name, " exists"), {{"name", row.name}});
  }
  RETURN_IF_ERROR(RecordArtifacts(context, transaction, *resource));
  resource->GetReflection()->SetString(
      resource, resource->GetDescriptor()->FindFieldByName("name"), row.name);
  SetTime(resource, "create_time", context.now());
  if (call.is_job) SetState(resource, v1::QUEUED);
  SetEtag(resource);
  row.state = StateOf(*resource);
  row.data = resource->SerializeAsString();
  RETURN_IF_ERROR(transaction.Insert(&row));
  if (call.is_job) {
    JobRow job;
    job.name = row.name;
    job.kind = call.kind;
    job.max_attempts = call.max_attempts;
    RETURN_IF_ERROR(transaction.SaveJob(job));
  }
  if (!call.request_id.empty()) {
    RETURN_IF_ERROR(transaction.InsertRequest(
        collection, call.request_id, {DigestOf(*call.request), row.name}));
  }
  return AppendResourceEvent(context, transaction, *resource, "created",
                             /*progress_only=*/false);
}

absl::StatusOr<std::unique_ptr<Message>> LoadAny(StoreTransaction& transaction,
                                                 const std::string& name) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Message> checked, NewResource(name));
  ASSIGN_OR_RETURN(const std::optional<ResourceRow> row,
                   transaction.Find(name));
  if (row.has_value()) return Parse(*row);
  return common::MakeError(absl::StatusCode::kNotFound, "RESOURCE_NOT_FOUND",
                           absl::StrCat("there is no ", name),
                           {{"name", name}});
}

absl::Status CheckEtag(const Message& resource, const std::string& etag) {
  const std::string found = resource.GetReflection()->GetString(
      resource, resource.GetDescriptor()->FindFieldByName("etag"));
  if (etag.empty() || etag == found) return absl::OkStatus();
  return common::MakeError(
      absl::StatusCode::kAborted, "ETAG_MISMATCH",
      absl::StrCat(NameOf(resource), " has changed: its etag is ", found),
      {{"expected", etag}, {"found", found}});
}

absl::Status SaveResource(StoreTransaction& transaction, Message* resource) {
  SetEtag(resource);
  ResourceRow row;
  row.name = NameOf(*resource);
  row.state = StateOf(*resource);
  row.data = resource->SerializeAsString();
  return transaction.Save(row);
}

absl::Status RecordArtifacts(const ControllerContext& context,
                             StoreTransaction& transaction,
                             const Message& message) {
  for (v1::ArtifactRef& ref : ArtifactRefsOf(message)) {
    const absl::StatusOr<int64_t> size = context.blobs->SizeOf(ref.sha256());
    if (!size.ok()) {
      return common::MakeError(
          absl::StatusCode::kFailedPrecondition, "ARTIFACT_MISSING",
          absl::StrCat("blob ", ref.sha256(), " was not uploaded"),
          {{"sha256", ref.sha256()}, {"file_name", ref.file_name()}});
    }
    ref.set_size_bytes(*size);
    RETURN_IF_ERROR(
        transaction.SaveArtifact(ref, absl::ToUnixMicros(context.now())));
  }
  return absl::OkStatus();
}

absl::StatusOr<JobChange> TransitionJob(const ControllerContext& context,
                                        StoreTransaction& transaction,
                                        const JobUpdate& update,
                                        Message* resource) {
  const std::string name = NameOf(*resource);
  ASSIGN_OR_RETURN(std::optional<JobRow> job, transaction.FindJob(name));
  if (!job.has_value()) {
    return absl::InternalError(absl::StrCat(name, " has no job row"));
  }
  const JobFacts facts = {JobStateOf(*resource), job->epoch, job->max_attempts};
  ASSIGN_OR_RETURN(const JobChange change, ApplyJobEvent(facts, update.event));
  job->epoch = change.facts.epoch;
  SetState(resource, change.facts.state);
  SetInt(resource, "attempt", job->epoch);
  ClearError(resource);
  for (const JobEffect effect : change.effects) {
    if (effect == JobEffect::kRevoke) {
      job->worker.clear();
      job->lease_expiry_us = 0;
    } else if (effect == JobEffect::kEnded) {
      SetTime(resource, "end_time", context.now());
      if (change.facts.state != v1::SUCCEEDED) {
        SetError(resource, FinalError(update, change));
      }
    }
  }
  if (update.event == JobEvent::kStart) {
    if (job->epoch == 1) SetTime(resource, "start_time", context.now());
    job->worker = update.worker;
    if (job->kind != v1::WORK_KIND_UNSPECIFIED) {
      job->lease_expiry_us = absl::ToUnixMicros(context.now() + context.lease);
    }
  }
  RETURN_IF_ERROR(transaction.SaveJob(*job));
  RETURN_IF_ERROR(SaveResource(transaction, resource));
  const std::string message = Describe(update, change);
  common::LogInfo("job", {{"resource", name},
                          {"state", v1::JobState_Name(change.facts.state)},
                          {"message", message}});
  RETURN_IF_ERROR(AppendResourceEvent(context, transaction, *resource, message,
                                      /*progress_only=*/false));
  return change;
}

absl::Status AppendResourceEvent(const ControllerContext& context,
                                 StoreTransaction& transaction,
                                 const Message& resource,
                                 const std::string& message,
                                 bool progress_only) {
  ASSIGN_OR_RETURN(const std::optional<ResourceRow> row,
                   transaction.Find(NameOf(resource)));
  v1::Event event;
  *event.mutable_time() = ToTimestamp(context.now());
  event.set_resource(NameOf(resource));
  event.set_state(EventStateOf(resource));
  *event.mutable_progress() = ProgressOf(resource);
  event.set_message(message);
  return transaction.AppendEvent(&event, row.has_value() ? row->parent : "",
                                 progress_only);
}

absl::StatusOr<int> CheckPageSize(int page_size) {
  if (page_size < 0) {
    return common::MakeError(absl::StatusCode::kInvalidArgument,
                             "INVALID_PAGE_SIZE",
                             absl::StrCat("page_size ", page_size, " < 0"));
  }
  return page_size == 0 ? kPageSizeDefault : std::min(page_size, kPageSizeMax);
}

std::string MakePageToken(absl::string_view collection, int64_t sequence) {
  return absl::WebSafeBase64Escape(absl::StrCat(collection, ":", sequence));
}

absl::StatusOr<int64_t> ParsePageToken(absl::string_view collection,
                                       absl::string_view token) {
  if (token.empty()) return 0;
  std::string text;
  int64_t sequence = 0;
  if (absl::WebSafeBase64Unescape(token, &text)) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(text, absl::MaxSplits(':', 1));
    if (parts.first == collection &&
        absl::SimpleAtoi(parts.second, &sequence) && sequence >= 0) {
      return sequence;
    }
  }
  return common::MakeError(absl::StatusCode::kInvalidArgument,
                           "INVALID_PAGE_TOKEN",
                           "page_token is not one that this call returned");
}

absl::StatusOr<std::vector<std::string>> ListPage(
    const ControllerContext& context, const std::string& collection,
    int page_size, const std::string& page_token, std::string* next_token) {
  ASSIGN_OR_RETURN(const int limit, CheckPageSize(page_size));
  ASSIGN_OR_RETURN(const int64_t after, ParsePageToken(collection, page_token));
  std::vector<ResourceRow> rows;
  RETURN_IF_ERROR(
      context.store->View([&](StoreTransaction& transaction) -> absl::Status {
        // One more than asked for says whether there is a next page.
        ASSIGN_OR_RETURN(rows, transaction.List(collection, after, limit + 1));
        return absl::OkStatus();
      }));
  next_token->clear();
  if (static_cast<int>(rows.size()) > limit) {
    rows.resize(limit);
    *next_token = MakePageToken(collection, rows.back().sequence);
  }
  std::vector<std::string> page;
  for (ResourceRow& row : rows) page.push_back(std::move(row.data));
  return page;
}

absl::Status InvalidField(absl::string_view field, absl::string_view value,
                          absl::string_view range) {
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "INVALID_FIELD",
      absl::StrCat(field, " is ", value, ", expected ", range),
      {{"field", std::string(field)},
       {"value", std::string(value)},
       {"range", std::string(range)}});
}

}  // namespace onegrid::controller
