// Whether a file is still the one that was read.
#ifndef SERVICES_COMMON_FILE_VERSION_H_
#define SERVICES_COMMON_FILE_VERSION_H_

#include <sys/stat.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace onegrid::common {

// Another one, if another file has taken the path's place or the file was
// written to. Changes that fall into one tick of the file system's clock, a few
// milliseconds, look alike.
struct FileVersion {
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t bytes = 0;
  int64_t changed_ns = 0;  // since the epoch; of content or metadata

  bool operator==(const FileVersion&) const = default;
};

FileVersion FileVersionOf(const struct stat& info);

// Of what the path leads to. Errors of common::ErrnoError.
absl::StatusOr<FileVersion> FileVersionOf(const std::string& path);

// Aborted (FILE_CHANGED) if the path does not lead to that version any more.
// Errors of FileVersionOf.
absl::Status CheckUnchanged(const std::string& path,
                            const FileVersion& version);

}  // namespace onegrid::common

#endif  // SERVICES_COMMON_FILE_VERSION_H_
