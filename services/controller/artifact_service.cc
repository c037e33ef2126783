#include "services/controller/artifact_service.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::controller {
namespace {

constexpr int64_t kChunkBytes = 1 << 20;

absl::Status OffsetMismatch(int64_t offset, int64_t committed) {
  return common::MakeError(absl::StatusCode::kInvalidArgument,
                           "UPLOAD_OFFSET_MISMATCH",
                           absl::StrCat("write_offset is ", offset,
                                        ", committed_size is ", committed),
                           {{"write_offset", absl::StrCat(offset)},
                            {"committed_size", absl::StrCat(committed)}});
}

}  // namespace

absl::Status ArtifactService::Read(
    const v1::ReadRequest& request,
    absl::FunctionRef<bool(const v1::ReadResponse&)> send) {
  ASSIGN_OR_RETURN(const std::string sha256,
                   ParseBlobName(request.resource_name()));
  if (request.read_offset() < 0 || request.read_limit() < 0) {
    return InvalidField("read_offset or read_limit", "negative", "0 or more");
  }
  ASSIGN_OR_RETURN(const int64_t size, context_->blobs->SizeOf(sha256));
  if (request.read_offset() > size) {
    return common::MakeError(
        absl::StatusCode::kOutOfRange, "READ_PAST_END",
        absl::StrCat("read_offset is ", request.read_offset(),
                     ", the blob has ", size, " bytes"));
  }
  const std::string path = context_->blobs->BlobPath(sha256);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return common::ErrnoError(errno, "open", path);
  const absl::Cleanup close_fd = [fd] { ::close(fd); };
  int64_t offset = request.read_offset();
  int64_t end = size;
  if (request.read_limit() > 0 && request.read_limit() < size - offset) {
    end = offset + request.read_limit();
  }
  v1::ReadResponse response;
  while (offset < end) {
    std::string* data = response.mutable_data();
    data->resize(std::min(kChunkBytes, end - offset));
    const ssize_t n = ::pread(fd, data->data(), data->size(), offset);
    if (n <= 0) return common::ErrnoError(n < 0 ? errno : EIO, "read", path);
    data->resize(n);
    offset += n;
    if (!send(response)) {
      return common::MakeError(absl::StatusCode::kCancelled, "CLIENT_GONE",
                               "the client stopped reading");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::WriteResponse> ArtifactService::Write(
    absl::FunctionRef<bool(v1::WriteRequest*)> receive) {
  v1::WriteRequest request;
  if (!receive(&request)) {
    return InvalidField("stream", "empty", "at least one message");
  }
  ASSIGN_OR_RETURN(const UploadName name,
                   ParseUploadName(request.resource_name()));
  v1::WriteResponse response;
  if (context_->blobs->Has(name.sha256)) {
    response.set_committed_size(name.size);
    return response;
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<BlobUpload> upload,
                   context_->blobs->OpenUpload(name));
  do {
    if (request.write_offset() != upload->committed_size()) {
      return OffsetMismatch(request.write_offset(), upload->committed_size());
    }
    if (!request.resource_name().empty()) {
      ASSIGN_OR_RETURN(const UploadName again,
                       ParseUploadName(request.resource_name()));
      if (again.uuid != name.uuid || again.sha256 != name.sha256 ||
          again.size != name.size) {
        return InvalidField("resource_name", request.resource_name(),
                            "the one of the first message");
      }
    }
    RETURN_IF_ERROR(upload->Append(request.data()));
    if (request.finish_write()) {
      RETURN_IF_ERROR(Publish(upload.get(), name));
      break;
    }
    request.clear_resource_name();
  } while (receive(&request));
  response.set_committed_size(upload->committed_size());
  return response;
}

absl::Status ArtifactService::Publish(BlobUpload* upload,
                                      const UploadName& name) {
  RETURN_IF_ERROR(upload->Finish());
  v1::ArtifactRef ref;
  ref.set_sha256(name.sha256);
  ref.set_size_bytes(name.size);
  return context_->store->Update([&](StoreTransaction& transaction) {
    return transaction.SaveArtifact(ref, absl::ToUnixMicros(context_->now()));
  });
}

absl::StatusOr<v1::QueryWriteStatusResponse> ArtifactService::QueryWriteStatus(
    const v1::QueryWriteStatusRequest& request) {
  ASSIGN_OR_RETURN(const UploadName name,
                   ParseUploadName(request.resource_name()));
  v1::QueryWriteStatusResponse response;
  response.set_complete(context_->blobs->Has(name.sha256));
  response.set_committed_size(
      response.complete() ? name.size : context_->blobs->CommittedSize(name));
  return response;
}

absl::StatusOr<v1::FindMissingBlobsResponse> ArtifactService::FindMissingBlobs(
    const v1::FindMissingBlobsRequest& request) {
  v1::FindMissingBlobsResponse response;
  for (const std::string& sha256 : request.sha256()) {
    if (!IsSha256(sha256)) {
      return InvalidField("sha256", sha256, "64 lower-case hex digits");
    }
    if (!context_->blobs->Has(sha256)) response.add_missing_sha256(sha256);
  }
  return response;
}

absl::StatusOr<v1::Artifact> ArtifactService::GetArtifact(
    const v1::GetArtifactRequest& request) {
  const std::string prefix = "artifacts/";
  if (request.name().rfind(prefix, 0) != 0) {
    return InvalidField("name", request.name(), "artifacts/{sha256}");
  }
  const std::string sha256 = request.name().substr(prefix.size());
  // The bytes decide whether the artifact is there.
  RETURN_IF_ERROR(context_->blobs->SizeOf(sha256).status());
  std::optional<v1::Artifact> artifact;
  RETURN_IF_ERROR(
      context_->store->View([&](StoreTransaction& transaction) -> absl::Status {
        ASSIGN_OR_RETURN(artifact, transaction.FindArtifact(sha256));
        return absl::OkStatus();
      }));
  if (artifact.has_value()) return *artifact;
  return common::MakeError(absl::StatusCode::kNotFound, "ARTIFACT_MISSING",
                           absl::StrCat("there is no ", request.name()),
                           {{"name", request.name()}});
}

absl::StatusOr<v1::ListArtifactsResponse> ArtifactService::ListArtifacts(
    const v1::ListArtifactsRequest& request) {
  ASSIGN_OR_RETURN(const int limit, CheckPageSize(request.page_size()));
  ASSIGN_OR_RETURN(const int64_t after,
                   ParsePageToken("artifacts", request.page_token()));
  std::vector<v1::Artifact> artifacts;
  bool more = false;
  int64_t last_id = 0;
  RETURN_IF_ERROR(
      context_->store->View([&](StoreTransaction& transaction) -> absl::Status {
        ASSIGN_OR_RETURN(artifacts,
                         transaction.ListArtifacts(after, limit, &last_id));
        int64_t unused = 0;
        ASSIGN_OR_RETURN(const std::vector<v1::Artifact> next,
                         transaction.ListArtifacts(last_id, 1, &unused));
        more = !next.empty();
        return absl::OkStatus();
      }));
  v1::ListArtifactsResponse response;
  for (const v1::Artifact& artifact : artifacts) {
    *response.add_artifacts() = artifact;
  }
  if (more) {
    response.set_next_page_token(MakePageToken("artifacts", last_id));
  }
  return response;
}

absl::Status ArtifactService::Recover() {
  const std::vector<v1::ArtifactRef> refs = context_->blobs->ListBlobs();
  return context_->store->Update(
      [&](StoreTransaction& transaction) -> absl::Status {
        for (const v1::ArtifactRef& ref : refs) {
          RETURN_IF_ERROR(transaction.SaveArtifact(
              ref, absl::ToUnixMicros(context_->now())));
        }
        return absl::OkStatus();
      });
}

}  // namespace onegrid::controller
