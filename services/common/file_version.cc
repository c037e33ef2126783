#include "services/common/file_version.h"

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::common {

FileVersion FileVersionOf(const struct stat& info) {
  return {info.st_dev, info.st_ino, info.st_size,
          int64_t{info.st_ctim.tv_sec} * 1'000'000'000 + info.st_ctim.tv_nsec};
}

absl::StatusOr<FileVersion> FileVersionOf(const std::string& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) {
    return ErrnoError(errno, "stat", path);
  }
  return FileVersionOf(info);
}

absl::Status CheckUnchanged(const std::string& path,
                            const FileVersion& version) {
  ASSIGN_OR_RETURN(const FileVersion now, FileVersionOf(path));
  if (now == version) return absl::OkStatus();
  return MakeError(absl::StatusCode::kAborted, "FILE_CHANGED",
                   absl::StrCat(path, " changed while it was read"),
                   {{"path", path}});
}

}  // namespace onegrid::common
