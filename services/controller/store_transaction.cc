#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/util/time_util.h"
#include "services/common/error_info.h"
#include "services/controller/store.h"

namespace onegrid::controller {
namespace {

std::string CollectionOf(absl::string_view name) {
  return std::string(name.substr(0, name.find('/')));
}

constexpr char kResourceColumns[] = "sequence, name, parent, state, data";

ResourceRow ReadResource(const SqliteStatement& query) {
  ResourceRow row;
  row.sequence = query.Int(0);
  row.name = query.Text(1);
  row.parent = query.Text(2);
  row.state = static_cast<int>(query.Int(3));
  row.data = query.Text(4);
  return row;
}

constexpr char kJobColumns[] =
    "name, kind, epoch, max_attempts, finished_epoch, worker, lease_expiry_us";

JobRow ReadJob(const SqliteStatement& query) {
  JobRow job;
  job.name = query.Text(0);
  job.kind = static_cast<v1::WorkKind>(query.Int(1));
  job.epoch = static_cast<int>(query.Int(2));
  job.max_attempts = static_cast<int>(query.Int(3));
  job.finished_epoch = static_cast<int>(query.Int(4));
  job.worker = query.Text(5);
  job.lease_expiry_us = query.Int(6);
  return job;
}

v1::Artifact ReadArtifact(const SqliteStatement& query) {
  v1::Artifact artifact;
  artifact.set_name(absl::StrCat("artifacts/", query.Text(0)));
  artifact.mutable_ref()->set_sha256(query.Text(0));
  artifact.mutable_ref()->set_size_bytes(query.Int(1));
  artifact.mutable_ref()->set_file_name(query.Text(2));
  artifact.mutable_ref()->set_media_type(query.Text(3));
  *artifact.mutable_create_time() =
      google::protobuf::util::TimeUtil::MicrosecondsToTimestamp(query.Int(4));
  return artifact;
}

}  // namespace

absl::StatusOr<std::optional<ResourceRow>> StoreTransaction::Find(
    absl::string_view name) {
  ASSIGN_OR_RETURN(
      SqliteStatement query,
      database_->Prepare(absl::StrCat("SELECT ", kResourceColumns,
                                      " FROM resources WHERE name = ?")));
  query.Bind(1, name);
  ASSIGN_OR_RETURN(const bool row, query.Step());
  if (!row) return std::nullopt;
  return ReadResource(query);
}

absl::Status StoreTransaction::Insert(ResourceRow* row) {
  ASSIGN_OR_RETURN(
      SqliteStatement insert,
      database_->Prepare("INSERT INTO resources (name, collection, parent, "
                         "state, data) VALUES (?, ?, ?, ?, ?)"));
  insert.Bind(1, row->name)
      .Bind(2, CollectionOf(row->name))
      .Bind(3, row->parent)
      .Bind(4, row->state)
      .BindBlob(5, row->data);
  RETURN_IF_ERROR(insert.Run());
  row->sequence = database_->last_insert_id();
  return absl::OkStatus();
}

absl::Status StoreTransaction::Save(const ResourceRow& row) {
  ASSIGN_OR_RETURN(SqliteStatement update,
                   database_->Prepare("UPDATE resources SET state = ?, "
                                      "data = ? WHERE name = ?"));
  update.Bind(1, row.state).BindBlob(2, row.data).Bind(3, row.name);
  RETURN_IF_ERROR(update.Run());
  if (database_->changes() == 1) return absl::OkStatus();
  return common::MakeError(absl::StatusCode::kInternal, "STORE_ERROR",
                           absl::StrCat("no row to save for ", row.name));
}

absl::Status StoreTransaction::Erase(absl::string_view name) {
  ASSIGN_OR_RETURN(SqliteStatement remove,
                   database_->Prepare("DELETE FROM resources WHERE name = ?"));
  remove.Bind(1, name);
  return remove.Run();
}

absl::StatusOr<std::vector<ResourceRow>> StoreTransaction::List(
    absl::string_view collection, int64_t after_sequence, int64_t limit) {
  ASSIGN_OR_RETURN(
      SqliteStatement query,
      database_->Prepare(absl::StrCat(
          "SELECT ", kResourceColumns, " FROM resources WHERE collection = ? ",
          "AND sequence > ? ORDER BY sequence LIMIT ?")));
  query.Bind(1, collection).Bind(2, after_sequence).Bind(3, limit);
  std::vector<ResourceRow> rows;
  while (true) {
    ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return rows;
    rows.push_back(ReadResource(query));
  }
}

absl::StatusOr<std::optional<JobRow>> StoreTransaction::FindJob(
    absl::string_view name) {
  ASSIGN_OR_RETURN(SqliteStatement query,
                   database_->Prepare(absl::StrCat(
                       "SELECT ", kJobColumns, " FROM jobs WHERE name = ?")));
  query.Bind(1, name);
  ASSIGN_OR_RETURN(const bool row, query.Step());
  if (!row) return std::nullopt;
  return ReadJob(query);
}

absl::Status StoreTransaction::SaveJob(const JobRow& job) {
  ASSIGN_OR_RETURN(SqliteStatement insert,
                   database_->Prepare(absl::StrCat(
                       "INSERT OR REPLACE INTO jobs (", kJobColumns,
                       ") VALUES (?, ?, ?, ?, ?, ?, ?)")));
  insert.Bind(1, job.name)
      .Bind(2, job.kind)
      .Bind(3, job.epoch)
      .Bind(4, job.max_attempts)
      .Bind(5, job.finished_epoch)
      .Bind(6, job.worker)
      .Bind(7, job.lease_expiry_us);
  return insert.Run();
}

absl::StatusOr<std::vector<JobRow>> StoreTransaction::LeasedJobs() {
  ASSIGN_OR_RETURN(
      SqliteStatement query,
      database_->Prepare(absl::StrCat("SELECT ", kJobColumns,
                                      " FROM jobs WHERE lease_expiry_us > 0")));
  std::vector<JobRow> jobs;
  while (true) {
    ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return jobs;
    jobs.push_back(ReadJob(query));
  }
}

absl::StatusOr<std::vector<std::string>> StoreTransaction::JobsInState(
    v1::WorkKind kind, v1::JobState state) {
  ASSIGN_OR_RETURN(
      SqliteStatement query,
      database_->Prepare("SELECT r.name FROM resources r JOIN jobs j ON "
                         "j.name = r.name WHERE j.kind = ? AND r.state = ? "
                         "ORDER BY r.sequence"));
  query.Bind(1, kind).Bind(2, state);
  std::vector<std::string> names;
  while (true) {
    ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return names;
    names.push_back(query.Text(0));
  }
}

absl::StatusOr<std::optional<RequestRow>> StoreTransaction::FindRequest(
    absl::string_view collection, absl::string_view request_id) {
  ASSIGN_OR_RETURN(SqliteStatement query,
                   database_->Prepare("SELECT digest, name FROM requests WHERE "
                                      "collection = ? AND request_id = ?"));
  query.Bind(1, collection).Bind(2, request_id);
  ASSIGN_OR_RETURN(const bool row, query.Step());
  if (!row) return std::nullopt;
  return RequestRow{query.Text(0), query.Text(1)};
}

absl::Status StoreTransaction::InsertRequest(absl::string_view collection,
                                             absl::string_view request_id,
                                             const RequestRow& request) {
  ASSIGN_OR_RETURN(SqliteStatement insert,
                   database_->Prepare("INSERT INTO requests (collection, "
                                      "request_id, digest, name) "
                                      "VALUES (?, ?, ?, ?)"));
  insert.Bind(1, collection)
      .Bind(2, request_id)
      .Bind(3, request.digest)
      .Bind(4, request.name);
  return insert.Run();
}

absl::Status StoreTransaction::AppendEvent(v1::Event* event,
                                           absl::string_view root,
                                           bool progress_only) {
  if (progress_only) {
    ASSIGN_OR_RETURN(SqliteStatement remove,
                     database_->Prepare("DELETE FROM events WHERE resource = ? "
                                        "AND progress_only = 1"));
    remove.Bind(1, event->resource());
    RETURN_IF_ERROR(remove.Run());
  }
  ASSIGN_OR_RETURN(
      SqliteStatement insert,
      database_->Prepare("INSERT INTO events (resource, root, progress_only, "
                         "data) VALUES (?, ?, ?, ?)"));
  insert.Bind(1, event->resource())
      .Bind(2, root)
      .Bind(3, progress_only ? 1 : 0)
      .BindBlob(4, event->SerializeAsString());
  RETURN_IF_ERROR(insert.Run());
  event->set_sequence(database_->last_insert_id());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<v1::Event>> StoreTransaction::EventsAfter(
    int64_t sequence, absl::string_view name, int64_t limit) {
  ASSIGN_OR_RETURN(
      SqliteStatement query,
      database_->Prepare(
          "SELECT sequence, data FROM events WHERE sequence > ?1 AND "
          "(?2 = '' OR resource = ?2 OR root = ?2) ORDER BY sequence "
          "LIMIT ?3"));
  query.Bind(1, sequence).Bind(2, name).Bind(3, limit);
  std::vector<v1::Event> events;
  while (true) {
    ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return events;
    v1::Event& event = events.emplace_back();
    if (!event.ParseFromString(query.Text(1))) {
      return common::MakeError(
          absl::StatusCode::kDataLoss, "STORE_ERROR",
          absl::StrCat("event ", query.Int(0), " of the database is corrupt"));
    }
    event.set_sequence(query.Int(0));
  }
}

absl::StatusOr<std::optional<v1::Artifact>> StoreTransaction::FindArtifact(
    absl::string_view sha256) {
  ASSIGN_OR_RETURN(
      SqliteStatement query,
      database_->Prepare("SELECT sha256, size_bytes, file_name, media_type, "
                         "create_us FROM artifacts WHERE sha256 = ?"));
  query.Bind(1, sha256);
  ASSIGN_OR_RETURN(const bool row, query.Step());
  if (!row) return std::nullopt;
  return ReadArtifact(query);
}

absl::Status StoreTransaction::SaveArtifact(const v1::ArtifactRef& ref,
                                            int64_t create_us) {
  ASSIGN_OR_RETURN(
      SqliteStatement insert,
      database_->Prepare(
          "INSERT INTO artifacts (sha256, size_bytes, file_name, media_type, "
          "create_us) VALUES (?1, ?2, ?3, ?4, ?5) "
          "ON CONFLICT (sha256) DO UPDATE SET "
          "file_name = iif(file_name = '', ?3, file_name), "
          "media_type = iif(media_type = '', ?4, media_type)"));
  insert.Bind(1, ref.sha256())
      .Bind(2, ref.size_bytes())
      .Bind(3, ref.file_name())
      .Bind(4, ref.media_type())
      .Bind(5, create_us);
  return insert.Run();
}

absl::StatusOr<std::vector<v1::Artifact>> StoreTransaction::ListArtifacts(
    int64_t after_id, int64_t limit, int64_t* last_id) {
  ASSIGN_OR_RETURN(
      SqliteStatement query,
      database_->Prepare("SELECT sha256, size_bytes, file_name, media_type, "
                         "create_us, id FROM artifacts WHERE id > ? "
                         "ORDER BY id LIMIT ?"));
  query.Bind(1, after_id).Bind(2, limit);
  std::vector<v1::Artifact> artifacts;
  *last_id = after_id;
  while (true) {
    ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return artifacts;
    artifacts.push_back(ReadArtifact(query));
    *last_id = query.Int(5);
  }
}

}  // namespace onegrid::controller
