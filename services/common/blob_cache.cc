#include "services/common/blob_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::common {
namespace fs = std::filesystem;

BlobCache::BlobCache(std::shared_ptr<grpc::Channel> channel, std::string folder,
                     int64_t bytes_max, absl::Duration retry_for)
    : client_(std::move(channel), retry_for),
      folder_(std::move(folder)),
      bytes_max_(bytes_max) {}

absl::StatusOr<std::string> BlobCache::Fetch(const v1::ArtifactRef& ref) {
  if (ref.sha256().size() != 64 ||
      ref.sha256().find_first_not_of("0123456789abcdef") != std::string::npos) {
    return MakeError(absl::StatusCode::kInvalidArgument, "INVALID_DIGEST",
                     absl::StrCat("'", ref.sha256(), "' is not a sha256"),
                     {{"sha256", ref.sha256()}});
  }
  RETURN_IF_ERROR(MakeFolder(folder_));
  const std::string path = absl::StrCat(folder_, "/", ref.sha256());
  // Another process may be downloading the same blob: one at a time.
  const std::string lock = path + ".lock";
  const int fd = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoError(errno, "open", lock);
  const absl::Cleanup close_fd = [fd] { ::close(fd); };
  if (::flock(fd, LOCK_EX) != 0) return ErrnoError(errno, "lock", lock);
  std::error_code error;
  if (fs::exists(path, error)) {
    // The name is the digest and files get it only when verified; the time
    // of use is what eviction goes by.
    ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
    return path;
  }
  EvictExcept(ref.sha256());
  RETURN_IF_ERROR(client_.Download(ref, path));
  return path;
}

void BlobCache::EvictExcept(const std::string& sha256) {
  struct Blob {
    fs::file_time_type time;
    int64_t bytes;
    fs::path path;
  };
  std::vector<Blob> blobs;
  int64_t total = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    const std::string name = entry.path().filename();
    if (name.size() != 64 || name == sha256) continue;
    blobs.push_back({entry.last_write_time(error),
                     static_cast<int64_t>(entry.file_size(error)),
                     entry.path()});
    total += blobs.back().bytes;
  }
  std::sort(blobs.begin(), blobs.end(),
            [](const Blob& a, const Blob& b) { return a.time < b.time; });
  for (const Blob& blob : blobs) {
    if (total <= bytes_max_) break;
    // Readers that have it mapped keep the bytes until they are done.
    fs::remove(blob.path, error);
    total -= blob.bytes;
  }
}

}  // namespace onegrid::common
