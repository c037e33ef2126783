#include "services/controller/store.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"

namespace onegrid::controller {
namespace {

constexpr int kSchemaVersion = 1;

constexpr char kSchema[] = R"sql(
CREATE TABLE resources (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  collection TEXT NOT NULL,
  parent TEXT NOT NULL,
  state INTEGER NOT NULL,
  data BLOB NOT NULL);
CREATE INDEX resources_by_collection ON resources (collection, sequence);
CREATE TABLE jobs (
  name TEXT PRIMARY KEY REFERENCES resources (name) ON DELETE CASCADE,
  kind INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  max_attempts INTEGER NOT NULL,
  finished_epoch INTEGER NOT NULL,
  worker TEXT NOT NULL,
  lease_expiry_us INTEGER NOT NULL);
CREATE TABLE requests (
  collection TEXT NOT NULL,
  request_id TEXT NOT NULL,
  digest TEXT NOT NULL,
  name TEXT NOT NULL,
  PRIMARY KEY (collection, request_id));
CREATE TABLE events (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  resource TEXT NOT NULL,
  root TEXT NOT NULL,
  progress_only INTEGER NOT NULL,
  data BLOB NOT NULL);
CREATE INDEX events_by_resource ON events (resource, sequence);
CREATE INDEX events_by_root ON events (root, sequence);
CREATE TABLE artifacts (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  sha256 TEXT NOT NULL UNIQUE,
  size_bytes INTEGER NOT NULL,
  file_name TEXT NOT NULL,
  media_type TEXT NOT NULL,
  create_us INTEGER NOT NULL);
)sql";

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> Store::Open(const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<SqliteDatabase> database,
                   SqliteDatabase::Open(path));
  auto store = absl::WrapUnique(new Store(std::move(database)));
  RETURN_IF_ERROR(store->Migrate());
  return store;
}

absl::Status Store::Migrate() {
  int64_t version = 0;
  {
    absl::MutexLock lock(&mutex_);
    ASSIGN_OR_RETURN(SqliteStatement query,
                     database_->Prepare("PRAGMA user_version"));
    ASSIGN_OR_RETURN(const bool row, query.Step());
    if (row) version = query.Int(0);
    if (version == 0) {
      return database_->Execute(
          absl::StrCat("BEGIN IMMEDIATE;", kSchema,
                       "PRAGMA user_version=", kSchemaVersion, ";COMMIT;"));
    }
  }
  if (version == kSchemaVersion) return absl::OkStatus();
  return common::MakeError(
      absl::StatusCode::kInternal, "STORE_ERROR",
      absl::StrCat("controller database has schema ", version,
                   ", this program knows ", kSchemaVersion));
}

absl::Status Store::Update(
    absl::FunctionRef<absl::Status(StoreTransaction&)> body) {
  return Transact("BEGIN IMMEDIATE", body);
}

absl::Status Store::View(
    absl::FunctionRef<absl::Status(StoreTransaction&)> body) {
  return Transact("BEGIN", body);
}

absl::Status Store::Transact(
    absl::string_view begin,
    absl::FunctionRef<absl::Status(StoreTransaction&)> body) {
  absl::MutexLock lock(&mutex_);
  RETURN_IF_ERROR(database_->Execute(std::string(begin)));
  StoreTransaction transaction(database_.get());
  absl::Status status = body(transaction);
  if (status.ok()) status = database_->Execute("COMMIT");
  if (!status.ok()) {
    // SQLite may have rolled back by itself; that is no error here.
    (void)database_->Execute("ROLLBACK");
  }
  return status;
}

}  // namespace onegrid::controller
