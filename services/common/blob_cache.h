// A folder of verified blobs that a worker downloaded.
#ifndef SERVICES_COMMON_BLOB_CACHE_H_
#define SERVICES_COMMON_BLOB_CACHE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "proto/onegrid/v1/common.pb.h"
#include "services/common/artifact_client.h"

namespace onegrid::common {

// Thread-safe; processes may share a folder.
class BlobCache {
 public:
  // Files are folder/{sha256}. Together they stay below bytes_max, except
  // that the newest blob is always kept.
  BlobCache(std::shared_ptr<grpc::Channel> channel, std::string folder,
            int64_t bytes_max, absl::Duration retry_for);

  // Path of the blob, downloaded if it is not there. Errors of
  // ArtifactClient::Download. InvalidArgument: ref.sha256 is not a digest.
  absl::StatusOr<std::string> Fetch(const v1::ArtifactRef& ref);

 private:
  void EvictExcept(const std::string& sha256);

  ArtifactClient client_;
  std::string folder_;
  int64_t bytes_max_;
};

}  // namespace onegrid::common

#endif  // SERVICES_COMMON_BLOB_CACHE_H_
