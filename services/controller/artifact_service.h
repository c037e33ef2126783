// Reads, resumable writes and lists of blobs. Thread-safe.
#ifndef SERVICES_CONTROLLER_ARTIFACT_SERVICE_H_
#define SERVICES_CONTROLLER_ARTIFACT_SERVICE_H_

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/onegrid/v1/artifact.pb.h"
#include "services/controller/registry.h"

namespace onegrid::controller {

// Logic of ByteStream and ArtifactService; errors as in artifact.proto.
class ArtifactService {
 public:
  explicit ArtifactService(const ControllerContext* context)
      : context_(context) {}

  // Calls `send` with at most 1 MiB at a time until it returns false.
  absl::Status Read(const v1::ReadRequest& request,
                    absl::FunctionRef<bool(const v1::ReadResponse&)> send);

  // Calls `receive` until it returns false, the end of the stream.
  absl::StatusOr<v1::WriteResponse> Write(
      absl::FunctionRef<bool(v1::WriteRequest*)> receive);

  absl::StatusOr<v1::QueryWriteStatusResponse> QueryWriteStatus(
      const v1::QueryWriteStatusRequest& request);
  absl::StatusOr<v1::FindMissingBlobsResponse> FindMissingBlobs(
      const v1::FindMissingBlobsRequest& request);
  absl::StatusOr<v1::Artifact> GetArtifact(
      const v1::GetArtifactRequest& request);
  absl::StatusOr<v1::ListArtifactsResponse> ListArtifacts(
      const v1::ListArtifactsRequest& request);

  // Lists blobs that reached the folder without their row: a crash between
  // the two. Call once before serving.
  absl::Status Recover();

 private:
  absl::Status Publish(BlobUpload* upload, const UploadName& name);

  const ControllerContext* context_;
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_ARTIFACT_SERVICE_H_
