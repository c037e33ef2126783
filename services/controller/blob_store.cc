#include "services/controller/blob_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::controller {
namespace fs = std::filesystem;
namespace {

constexpr size_t kUuidSizeMax = 64;

absl::Status BadName(absl::string_view name, absl::string_view expected) {
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "INVALID_RESOURCE_NAME",
      absl::StrCat("resource name '", name, "' is not ", expected),
      {{"name", std::string(name)}, {"expected", std::string(expected)}});
}

bool IsUuid(absl::string_view text) {
  return !text.empty() && text.size() <= kUuidSizeMax &&
         text.find_first_not_of("0123456789abcdefABCDEF-") ==
             absl::string_view::npos;
}

int64_t FileSize(const std::string& path) {
  struct stat info = {};
  return ::stat(path.c_str(), &info) == 0 ? info.st_size : -1;
}

}  // namespace

bool IsSha256(absl::string_view text) {
  return text.size() == 64 &&
         text.find_first_not_of("0123456789abcdef") == absl::string_view::npos;
}

absl::StatusOr<UploadName> ParseUploadName(absl::string_view resource_name) {
  const std::vector<std::string> parts = absl::StrSplit(resource_name, '/');
  UploadName name;
  if (parts.size() != 5 || parts[0] != "uploads" || !IsUuid(parts[1]) ||
      parts[2] != "blobs" || !IsSha256(parts[3]) ||
      !absl::SimpleAtoi(parts[4], &name.size) || name.size < 0) {
    return BadName(resource_name, "uploads/{uuid}/blobs/{sha256}/{size}");
  }
  name.uuid = parts[1];
  name.sha256 = parts[3];
  return name;
}

absl::StatusOr<std::string> ParseBlobName(absl::string_view resource_name) {
  const std::vector<std::string> parts = absl::StrSplit(resource_name, '/');
  if (parts.size() != 2 || parts[0] != "blobs" || !IsSha256(parts[1])) {
    return BadName(resource_name, "blobs/{sha256}");
  }
  return parts[1];
}

BlobUpload::BlobUpload(BlobStore* store, UploadName name, std::string path,
                       int fd, int64_t committed_size)
    : store_(store),
      name_(std::move(name)),
      path_(std::move(path)),
      fd_(fd),
      committed_size_(committed_size) {}

BlobUpload::~BlobUpload() {
  // A writer that resumes trusts the size, so the bytes must be durable.
  ::fsync(fd_);
  ::close(fd_);
  store_->Release(path_);
}

absl::Status BlobUpload::Append(absl::string_view bytes) {
  const int64_t end = committed_size_ + static_cast<int64_t>(bytes.size());
  if (end > name_.size) {
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "DIGEST_MISMATCH",
        absl::StrCat("upload has more than the ", name_.size,
                     " bytes that its name says"),
        {{"expected_size", absl::StrCat(name_.size)},
         {"found_size", absl::StrCat(end)}});
  }
  const absl::Status status = common::WriteAll(fd_, bytes, path_);
  if (!status.ok()) {
    // Drop a torn tail; the caller reports the first error.
    if (::ftruncate(fd_, committed_size_) != 0) ::unlink(path_.c_str());
    return status;
  }
  committed_size_ = end;
  return absl::OkStatus();
}

absl::Status BlobUpload::Finish() {
  ASSIGN_OR_RETURN(const std::string found, common::Sha256OfFile(path_));
  if (committed_size_ != name_.size || found != name_.sha256) {
    ::unlink(path_.c_str());
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "DIGEST_MISMATCH",
        absl::StrCat("upload has ", committed_size_, " bytes of sha256 ", found,
                     ", its name says ", name_.size, " of ", name_.sha256),
        {{"expected", name_.sha256}, {"found", found}});
  }
  if (::fsync(fd_) != 0) return common::ErrnoError(errno, "fsync", path_);
  if (::fchmod(fd_, 0444) != 0) {
    return common::ErrnoError(errno, "chmod", path_);
  }
  const std::string blob = store_->BlobPath(name_.sha256);
  if (::rename(path_.c_str(), blob.c_str()) != 0) {
    return common::ErrnoError(errno, "rename", blob);
  }
  return common::SyncFolder(fs::path(blob).parent_path());
}

absl::StatusOr<std::unique_ptr<BlobStore>> BlobStore::Open(
    const std::string& root) {
  auto store = absl::WrapUnique(new BlobStore(root));
  RETURN_IF_ERROR(common::MakeFolder(root + "/blobs"));
  RETURN_IF_ERROR(common::MakeFolder(root + "/uploads"));
  const auto oldest =
      fs::file_time_type::clock::now() - std::chrono::hours(168);
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(root + "/uploads", error)) {
    if (entry.last_write_time(error) < oldest) fs::remove(entry.path(), error);
  }
  return store;
}

std::string BlobStore::BlobPath(absl::string_view sha256) const {
  return absl::StrCat(root_, "/blobs/", sha256);
}

bool BlobStore::Has(absl::string_view sha256) const {
  return IsSha256(sha256) && FileSize(BlobPath(sha256)) >= 0;
}

absl::StatusOr<int64_t> BlobStore::SizeOf(absl::string_view sha256) const {
  const int64_t size = IsSha256(sha256) ? FileSize(BlobPath(sha256)) : -1;
  if (size >= 0) return size;
  return common::MakeError(
      absl::StatusCode::kNotFound, "ARTIFACT_MISSING",
      absl::StrCat("no blob has the sha256 '", sha256, "'"),
      {{"sha256", std::string(sha256)}});
}

std::vector<v1::ArtifactRef> BlobStore::ListBlobs() const {
  std::vector<v1::ArtifactRef> refs;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(root_ + "/blobs", error)) {
    const std::string name = entry.path().filename();
    if (!IsSha256(name)) continue;
    v1::ArtifactRef& ref = refs.emplace_back();
    ref.set_sha256(name);
    ref.set_size_bytes(static_cast<int64_t>(entry.file_size(error)));
  }
  return refs;
}

absl::StatusOr<std::string> BlobStore::ModelPath(
    absl::string_view sha256, const std::vector<v1::ArtifactRef>& files) const {
  if (files.size() == 1) return BlobPath(files[0].sha256());
  const std::string folder = absl::StrCat(root_, "/models/", sha256);
  RETURN_IF_ERROR(common::MakeFolder(folder));
  for (const v1::ArtifactRef& file : files) {
    const std::string& name = file.file_name();
    if (name.empty() || name == "." || name == ".." ||
        absl::StrContains(name, '/')) {
      return common::MakeError(
          absl::StatusCode::kInternal, "BAD_FILE_NAME",
          absl::StrCat("'", name, "' is not the name of a file"),
          {{"file_name", name}});
    }
    const std::string link = absl::StrCat(folder, "/", name);
    const std::string target = absl::StrCat("../../blobs/", file.sha256());
    if (::symlink(target.c_str(), link.c_str()) != 0 && errno != EEXIST) {
      return common::ErrnoError(errno, "link", link);
    }
  }
  return absl::StrCat(folder, "/", files[0].file_name());
}

int64_t BlobStore::CommittedSize(const UploadName& name) const {
  return std::max<int64_t>(0, FileSize(UploadPath(name)));
}

absl::StatusOr<std::unique_ptr<BlobUpload>> BlobStore::OpenUpload(
    const UploadName& name) {
  const std::string path = UploadPath(name);
  {
    absl::MutexLock lock(&mutex_);
    if (!busy_uploads_.insert(path).second) {
      return common::MakeError(absl::StatusCode::kAborted, "UPLOAD_BUSY",
                               "another call writes this upload",
                               {{"uuid", name.uuid}});
    }
  }
  const int fd =
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) {
    const int error = errno;
    Release(path);
    return common::ErrnoError(error, "open", path);
  }
  return absl::WrapUnique(
      new BlobUpload(this, name, path, fd, CommittedSize(name)));
}

std::string BlobStore::UploadPath(const UploadName& name) const {
  return absl::StrCat(root_, "/uploads/", name.uuid, ".", name.sha256);
}

void BlobStore::Release(const std::string& upload_path) {
  absl::MutexLock lock(&mutex_);
  busy_uploads_.erase(upload_path);
}

}  // namespace onegrid::controller
