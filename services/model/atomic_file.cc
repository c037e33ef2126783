#include "services/model/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::model {
namespace {

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

absl::StatusOr<std::unique_ptr<AtomicFile>> AtomicFile::Create(
    const std::string& path) {
  std::vector<char> name;
  const std::string pattern = absl::StrCat(path, ".tmp.XXXXXX");
  name.assign(pattern.begin(), pattern.end());
  name.push_back('\0');
  const int fd = mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) return common::ErrnoError(errno, "create", path);
  // mkostemp makes the file private; an artifact is as readable as other files.
  if (fchmod(fd, 0644) != 0) {
    const int error = errno;
    close(fd);
    unlink(name.data());
    return common::ErrnoError(error, "create", path);
  }
  return std::unique_ptr<AtomicFile>(new AtomicFile(path, name.data(), fd));
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

absl::Status AtomicFile::Append(absl::Span<const uint8_t> bytes) {
  RETURN_IF_ERROR(common::WriteAll(
      fd_,
      absl::string_view(reinterpret_cast<const char*>(bytes.data()),
                        bytes.size()),
      path_));
  size_ += bytes.size();
  return absl::OkStatus();
}

absl::Status AtomicFile::Append(const std::string& bytes) {
  return Append(absl::MakeConstSpan(
      reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()));
}

absl::Status AtomicFile::PadTo(int64_t alignment) {
  const int64_t padding = (alignment - size_ % alignment) % alignment;
  return Append(std::string(padding, '\0'));
}

absl::Status AtomicFile::Commit() {
  if (fsync(fd_) != 0) return common::ErrnoError(errno, "sync", path_);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) {
    return common::ErrnoError(errno, "rename", path_);
  }
  close(fd_);
  fd_ = -1;
  const absl::Status synced = common::SyncFolder(FolderOf(path_));
  // Its name may not outlast a crash: nobody is to rely on it.
  if (!synced.ok()) unlink(path_.c_str());
  return synced;
}

}  // namespace onegrid::model
