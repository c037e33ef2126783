// Files that are whole or absent, and their digests. Thread-safe as long as
// two threads do not write one path.
#ifndef SERVICES_COMMON_FILES_H_
#define SERVICES_COMMON_FILES_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace onegrid::common {

// A status for errno value `error` of `action` on `path`: NotFound,
// PermissionDenied (FILE_ACCESS), ResourceExhausted (DISK_FULL), AlreadyExists
// or Internal (IO_ERROR).
absl::Status ErrnoError(int error, absl::string_view action,
                        absl::string_view path);

// Writes all of `bytes` to `fd`. ResourceExhausted: no space is left.
absl::Status WriteAll(int fd, absl::string_view bytes, absl::string_view path);

// Puts `contents` at `path`: temporary name beside it, fsync, rename, fsync of
// the folder. A reader sees the old file or the new one.
absl::Status WriteFileAtomic(const std::string& path,
                             absl::string_view contents);

// The whole file. NotFound, PermissionDenied, Internal.
absl::StatusOr<std::string> ReadFile(const std::string& path);

// Makes the names in a folder durable.
absl::Status SyncFolder(const std::string& path);

// Makes a folder and its parents; no error if it is there.
absl::Status MakeFolder(const std::string& path);

// Streaming SHA-256. Not thread-safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(absl::string_view bytes);
  // 64 lower-case hex digits. The object is spent.
  std::string Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

// 64 lower-case hex digits of the bytes' SHA-256.
std::string Sha256Of(absl::string_view bytes);
absl::StatusOr<std::string> Sha256OfFile(const std::string& path);
// What stands for a model of these files: the digest of one alone; of several,
// in order, that of their digests, one a line.
std::string Sha256OfModel(absl::Span<const std::string> file_sha256s);

}  // namespace onegrid::common

#endif  // SERVICES_COMMON_FILES_H_
