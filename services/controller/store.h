// The controller's durable state in one SQLite file.
#ifndef SERVICES_CONTROLLER_STORE_H_
#define SERVICES_CONTROLLER_STORE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "proto/onegrid/v1/artifact.pb.h"
#include "proto/onegrid/v1/common.pb.h"
#include "proto/onegrid/v1/worker.pb.h"
#include "services/controller/sqlite.h"

namespace onegrid::controller {

// One resource of any collection.
struct ResourceRow {
  // Order of creation; set by Insert.
  int64_t sequence = 0;
  // "tuningJobs/t1".
  std::string name;
  // The pipeline run that made it, or empty.
  std::string parent;
  // Number of the resource's state enum; 0 where it has none.
  int state = 0;
  // Serialized resource message.
  std::string data;
};

// The scheduling side of a resource that is work.
struct JobRow {
  std::string name;
  v1::WorkKind kind = v1::WORK_KIND_UNSPECIFIED;
  int epoch = 0;
  int max_attempts = 1;
  // Epoch of the last attempt that ended by FinishAttempt.
  int finished_epoch = 0;
  // Who holds the lease; empty: nobody.
  std::string worker;
  // Microseconds since the Unix epoch; 0: no lease.
  int64_t lease_expiry_us = 0;
};

// A create call that was made under a request_id.
struct RequestRow {
  std::string digest;
  std::string name;
};

// Reads and writes within one transaction. Valid inside Store::Update or
// Store::View only. Errors: ResourceExhausted (DISK_FULL), Internal.
class StoreTransaction {
 public:
  explicit StoreTransaction(SqliteDatabase* database) : database_(database) {}

  absl::StatusOr<std::optional<ResourceRow>> Find(absl::string_view name);
  // Sets row->sequence. Internal: the name is taken.
  absl::Status Insert(ResourceRow* row);
  // Replaces state and data of the row with this name.
  absl::Status Save(const ResourceRow& row);
  // Removes a resource and its job row.
  absl::Status Erase(absl::string_view name);
  // Resources "{collection}/...", oldest first, with a greater sequence.
  absl::StatusOr<std::vector<ResourceRow>> List(absl::string_view collection,
                                                int64_t after_sequence,
                                                int64_t limit);

  absl::StatusOr<std::optional<JobRow>> FindJob(absl::string_view name);
  // Inserts or replaces.
  absl::Status SaveJob(const JobRow& job);
  absl::StatusOr<std::vector<JobRow>> LeasedJobs();
  // Names of jobs of a kind whose resource has the state, oldest first.
  absl::StatusOr<std::vector<std::string>> JobsInState(v1::WorkKind kind,
                                                       v1::JobState state);

  absl::StatusOr<std::optional<RequestRow>> FindRequest(
      absl::string_view collection, absl::string_view request_id);
  absl::Status InsertRequest(absl::string_view collection,
                             absl::string_view request_id,
                             const RequestRow& request);

  // Appends an event; event->sequence is set. `root` is the pipeline run that
  // the resource belongs to, or empty. One that only reports progress
  // replaces the resource's previous such event, so that the log stays small.
  absl::Status AppendEvent(v1::Event* event, absl::string_view root,
                           bool progress_only);
  // Events after a sequence, of one resource and those it is the root of, or
  // of all when `name` is empty.
  absl::StatusOr<std::vector<v1::Event>> EventsAfter(int64_t sequence,
                                                     absl::string_view name,
                                                     int64_t limit);

  absl::StatusOr<std::optional<v1::Artifact>> FindArtifact(
      absl::string_view sha256);
  // Inserts, or fills in names that are still empty.
  absl::Status SaveArtifact(const v1::ArtifactRef& ref, int64_t create_us);
  // Oldest first; *last_id is that of the last one.
  absl::StatusOr<std::vector<v1::Artifact>> ListArtifacts(int64_t after_id,
                                                          int64_t limit,
                                                          int64_t* last_id);

 private:
  SqliteDatabase* database_;
};

// Thread-safe: one transaction at a time.
class Store {
 public:
  // Opens or creates the file. Internal (STORE_ERROR): not a database of
  // ours, or of a newer schema.
  static absl::StatusOr<std::unique_ptr<Store>> Open(const std::string& path);

  // Runs `body` in a transaction that is durable when OK is returned, and
  // undone when `body` or the commit fails. `body` must not use the store.
  absl::Status Update(absl::FunctionRef<absl::Status(StoreTransaction&)> body);

  // Runs `body` on a consistent snapshot, for reading.
  absl::Status View(absl::FunctionRef<absl::Status(StoreTransaction&)> body);

 private:
  explicit Store(std::unique_ptr<SqliteDatabase> database)
      : database_(std::move(database)) {}
  absl::Status Migrate();
  absl::Status Transact(
      absl::string_view begin,
      absl::FunctionRef<absl::Status(StoreTransaction&)> body);

  absl::Mutex mutex_;
  std::unique_ptr<SqliteDatabase> database_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_STORE_H_
