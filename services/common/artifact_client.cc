#include "services/common/artifact_client.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/grpc_status.h"
#include "services/common/stop_signal.h"

namespace onegrid::common {
namespace {

constexpr int64_t kChunkBytes = 1 << 20;

bool IsTransient(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsAborted(status) ||
         ErrorReason(status) == "UPLOAD_OFFSET_MISMATCH";
}

// Calls `once` until it succeeds, fails for good, or makes no progress (a
// larger *done) for `retry_for`.
absl::Status WithRetries(absl::Duration retry_for, const int64_t* done,
                         const std::function<absl::Status()>& once) {
  absl::Time last_progress = absl::Now();
  absl::Duration pause = absl::Milliseconds(100);
  while (true) {
    const int64_t before = *done;
    const absl::Status status = once();
    if (status.ok() || !IsTransient(status)) return status;
    if (*done > before) {
      last_progress = absl::Now();
      pause = absl::Milliseconds(100);
    }
    if (absl::Now() - last_progress > retry_for) return status;
    if (WaitForStop(pause)) return status;
    pause = std::min(2 * pause, absl::Duration(absl::Seconds(5)));
  }
}

// The same file always uses the same upload, so that another process of the
// same user can go on with it.
std::string UploadName(const std::string& sha256, int64_t size) {
  const std::string uuid = absl::StrCat(
      sha256.substr(0, 8), "-", sha256.substr(8, 4), "-", sha256.substr(12, 4),
      "-", sha256.substr(16, 4), "-", sha256.substr(20, 12));
  return absl::StrCat("uploads/", uuid, "/blobs/", sha256, "/", size);
}

}  // namespace

ArtifactClient::ArtifactClient(std::shared_ptr<grpc::Channel> channel,
                               absl::Duration retry_for)
    : stub_(v1::ByteStream::NewStub(std::move(channel))),
      retry_for_(retry_for) {}

absl::StatusOr<v1::ArtifactRef> ArtifactClient::Upload(
    const std::string& path, const std::string& file_name,
    const std::string& media_type, const TransferProgress& progress) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoError(errno, "open", path);
  const absl::Cleanup close_fd = [fd] { ::close(fd); };
  struct stat info = {};
  if (::fstat(fd, &info) != 0) return ErrnoError(errno, "stat", path);
  if (!S_ISREG(info.st_mode)) {
    return MakeError(absl::StatusCode::kInvalidArgument, "NOT_A_FILE",
                     absl::StrCat(path, " is not a regular file"),
                     {{"path", path}});
  }
  v1::ArtifactRef ref;
  ASSIGN_OR_RETURN(const std::string sha256, Sha256OfFile(path));
  ref.set_sha256(sha256);
  ref.set_size_bytes(info.st_size);
  ref.set_file_name(file_name);
  ref.set_media_type(media_type);
  const std::string name = UploadName(sha256, info.st_size);
  int64_t committed = 0;
  RETURN_IF_ERROR(WithRetries(retry_for_, &committed, [&] {
    return UploadOnce(name, fd, path, info.st_size, progress, &committed);
  }));
  return ref;
}

absl::Status ArtifactClient::UploadOnce(const std::string& resource_name,
                                        int fd, const std::string& path,
                                        int64_t size,
                                        const TransferProgress& progress,
                                        int64_t* committed) {
  v1::QueryWriteStatusRequest query;
  query.set_resource_name(resource_name);
  v1::QueryWriteStatusResponse state;
  {
    grpc::ClientContext context;
    RETURN_IF_ERROR(FromGrpc(stub_->QueryWriteStatus(&context, query, &state)));
  }
  *committed = state.committed_size();
  if (state.complete()) return absl::OkStatus();
  grpc::ClientContext context;
  v1::WriteResponse response;
  const auto writer = stub_->Write(&context, &response);
  v1::WriteRequest request;
  request.set_resource_name(resource_name);
  int64_t offset = *committed;
  while (true) {
    std::string* data = request.mutable_data();
    data->resize(std::min(kChunkBytes, size - offset));
    const ssize_t n = ::pread(fd, data->data(), data->size(), offset);
    if (n < 0 || n != static_cast<ssize_t>(data->size())) {
      context.TryCancel();
      (void)writer->Finish();
      return ErrnoError(n < 0 ? errno : EIO, "read", path);
    }
    request.set_write_offset(offset);
    offset += n;
    request.set_finish_write(offset == size);
    if (!writer->Write(request)) break;
    if (progress) progress(offset, size);
    if (request.finish_write()) break;
    request.clear_resource_name();
  }
  writer->WritesDone();
  RETURN_IF_ERROR(FromGrpc(writer->Finish()));
  *committed = response.committed_size();
  return absl::OkStatus();
}

absl::Status ArtifactClient::Download(const v1::ArtifactRef& ref,
                                      const std::string& path,
                                      const TransferProgress& progress) {
  const std::string part = path + ".part";
  const int fd = ::open(part.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoError(errno, "open", part);
  const absl::Cleanup close_fd = [fd] { ::close(fd); };
  struct stat info = {};
  if (::fstat(fd, &info) != 0) return ErrnoError(errno, "stat", part);
  int64_t done = info.st_size;
  if (ref.size_bytes() > 0 && done > ref.size_bytes()) done = 0;
  if (::ftruncate(fd, done) != 0) return ErrnoError(errno, "truncate", part);
  RETURN_IF_ERROR(WithRetries(retry_for_, &done, [&] {
    return DownloadOnce(ref, fd, part, progress, &done);
  }));
  if (::fsync(fd) != 0) return ErrnoError(errno, "fsync", part);
  ASSIGN_OR_RETURN(const std::string sha256, Sha256OfFile(part));
  if (sha256 != ref.sha256()) {
    ::unlink(part.c_str());
    return MakeError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                     absl::StrCat("downloaded blob has sha256 ", sha256,
                                  ", expected ", ref.sha256()),
                     {{"expected", ref.sha256()}, {"found", sha256}});
  }
  if (::rename(part.c_str(), path.c_str()) != 0) {
    return ErrnoError(errno, "rename", path);
  }
  return absl::OkStatus();
}

absl::Status ArtifactClient::DownloadOnce(const v1::ArtifactRef& ref, int fd,
                                          const std::string& path,
                                          const TransferProgress& progress,
                                          int64_t* done) {
  v1::ReadRequest request;
  request.set_resource_name(absl::StrCat("blobs/", ref.sha256()));
  request.set_read_offset(*done);
  grpc::ClientContext context;
  const auto reader = stub_->Read(&context, request);
  v1::ReadResponse response;
  if (::lseek(fd, *done, SEEK_SET) < 0) return ErrnoError(errno, "seek", path);
  while (reader->Read(&response)) {
    const absl::Status written = WriteAll(fd, response.data(), path);
    if (!written.ok()) {
      context.TryCancel();
      (void)reader->Finish();
      return written;
    }
    *done += static_cast<int64_t>(response.data().size());
    if (progress) progress(*done, ref.size_bytes());
  }
  return FromGrpc(reader->Finish());
}

}  // namespace onegrid::common
