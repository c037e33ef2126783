// Uploads and downloads blobs of the controller, resumably and checked.
#ifndef SERVICES_COMMON_ARTIFACT_CLIENT_H_
#define SERVICES_COMMON_ARTIFACT_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "proto/onegrid/v1/artifact.grpc.pb.h"

namespace onegrid::common {

// Bytes done and in all.
using TransferProgress = std::function<void(int64_t done, int64_t total)>;

// A client of ByteStream. Thread-safe.
class ArtifactClient {
 public:
  // Calls that fail with UNAVAILABLE or ABORTED are resumed where they
  // stopped, for up to `retry_for` without any byte of progress.
  explicit ArtifactClient(std::shared_ptr<grpc::Channel> channel,
                          absl::Duration retry_for = absl::Minutes(2));

  // Stores the file and names it. A blob that the store has already is not
  // sent again. Errors of the file and of ByteStream.Write.
  absl::StatusOr<v1::ArtifactRef> Upload(const std::string& path,
                                         const std::string& file_name,
                                         const std::string& media_type,
                                         const TransferProgress& progress = {});

  // Puts the blob at `path`, which is whole or absent; "{path}.part" is kept
  // after a failure and resumed. DataLoss (DIGEST_MISMATCH): the bytes are not
  // those of ref.sha256.
  absl::Status Download(const v1::ArtifactRef& ref, const std::string& path,
                        const TransferProgress& progress = {});

 private:
  absl::Status UploadOnce(const std::string& resource_name, int fd,
                          const std::string& path, int64_t size,
                          const TransferProgress& progress, int64_t* committed);
  absl::Status DownloadOnce(const v1::ArtifactRef& ref, int fd,
                            const std::string& path,
                            const TransferProgress& progress, int64_t* done);

  std::unique_ptr<v1::ByteStream::Stub> stub_;
  absl::Duration retry_for_;
};

}  // namespace onegrid::common

#endif  // SERVICES_COMMON_ARTIFACT_CLIENT_H_
