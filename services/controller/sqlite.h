// A thin owner of SQLite's handles: statuses instead of codes.
#ifndef SERVICES_CONTROLLER_SQLITE_H_
#define SERVICES_CONTROLLER_SQLITE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct sqlite3;
struct sqlite3_stmt;

namespace onegrid::controller {

// A prepared statement. Binding and column indices count from 1 and 0, as in
// SQLite. Not thread-safe.
class SqliteStatement {
 public:
  explicit SqliteStatement(sqlite3_stmt* statement) : statement_(statement) {}
  ~SqliteStatement();
  SqliteStatement(SqliteStatement&& other) noexcept;
  SqliteStatement(const SqliteStatement&) = delete;
  SqliteStatement& operator=(const SqliteStatement&) = delete;

  SqliteStatement& Bind(int index, int64_t value);
  // Text and blobs are copied.
  SqliteStatement& Bind(int index, absl::string_view text);
  SqliteStatement& BindBlob(int index, absl::string_view bytes);

  // True: a row is there. False: the end. ResourceExhausted (DISK_FULL),
  // Internal (STORE_ERROR).
  absl::StatusOr<bool> Step();
  // Steps to the end, ignoring rows.
  absl::Status Run();

  int64_t Int(int column) const;
  std::string Text(int column) const;

 private:
  sqlite3_stmt* statement_;
};

// A connection. Not thread-safe.
class SqliteDatabase {
 public:
  // Opens or creates the file, in WAL mode with synchronous=FULL: a commit
  // that returned is on disk.
  static absl::StatusOr<std::unique_ptr<SqliteDatabase>> Open(
      const std::string& path);
  ~SqliteDatabase();
  SqliteDatabase(const SqliteDatabase&) = delete;
  SqliteDatabase& operator=(const SqliteDatabase&) = delete;

  absl::StatusOr<SqliteStatement> Prepare(absl::string_view sql);
  // Runs statements without parameters.
  absl::Status Execute(const std::string& sql);
  int64_t last_insert_id() const;
  // Rows that the last statement changed.
  int64_t changes() const;

 private:
  explicit SqliteDatabase(sqlite3* database) : database_(database) {}
  sqlite3* database_;
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_SQLITE_H_
