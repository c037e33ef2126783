// Content-addressed files under one folder, and uploads on their way there.
//   {root}/blobs/{sha256}      whole, verified, read-only
//   {root}/uploads/{uuid}.{sha256}  the bytes received so far
//   {root}/models/{sha256}/{file name}  links to the shards of one model
#ifndef SERVICES_CONTROLLER_BLOB_STORE_H_
#define SERVICES_CONTROLLER_BLOB_STORE_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "proto/onegrid/v1/common.pb.h"

namespace onegrid::controller {

// The parts of "uploads/{uuid}/blobs/{sha256}/{size}".
struct UploadName {
  std::string uuid;
  std::string sha256;
  int64_t size = 0;
};

// InvalidArgument (INVALID_RESOURCE_NAME).
absl::StatusOr<UploadName> ParseUploadName(absl::string_view resource_name);

// The digest of "blobs/{sha256}". InvalidArgument.
absl::StatusOr<std::string> ParseBlobName(absl::string_view resource_name);

// True for 64 lower-case hex digits.
bool IsSha256(absl::string_view text);

class BlobStore;

// The only writer of one upload, from OpenUpload until it is destroyed. What
// was appended stays for the next writer. Not thread-safe.
class BlobUpload {
 public:
  ~BlobUpload();
  BlobUpload(const BlobUpload&) = delete;
  BlobUpload& operator=(const BlobUpload&) = delete;

  int64_t committed_size() const { return committed_size_; }

  // InvalidArgument: more than `size` bytes (DIGEST_MISMATCH).
  // ResourceExhausted (DISK_FULL): bytes before this call are kept.
  absl::Status Append(absl::string_view bytes);

  // Checks size and digest, and publishes the blob durably. InvalidArgument
  // (DIGEST_MISMATCH): the upload is dropped.
  absl::Status Finish();

 private:
  friend class BlobStore;
  BlobUpload(BlobStore* store, UploadName name, std::string path, int fd,
             int64_t committed_size);

  BlobStore* store_;
  UploadName name_;
  std::string path_;
  int fd_;
  int64_t committed_size_;
};

// Thread-safe.
class BlobStore {
 public:
  // Makes the folders, and removes uploads untouched for a week.
  static absl::StatusOr<std::unique_ptr<BlobStore>> Open(
      const std::string& root);

  std::string BlobPath(absl::string_view sha256) const;
  bool Has(absl::string_view sha256) const;
  // NotFound (ARTIFACT_MISSING).
  absl::StatusOr<int64_t> SizeOf(absl::string_view sha256) const;
  std::vector<v1::ArtifactRef> ListBlobs() const;
  // Where a model can be opened: the blob of one file; the first of several,
  // which readers find by their names, in a folder with links that have those.
  // `sha256` is that of all files together. Internal (BAD_FILE_NAME): a name
  // that is none. Errors of the disk.
  absl::StatusOr<std::string> ModelPath(
      absl::string_view sha256,
      const std::vector<v1::ArtifactRef>& files) const;

  // Bytes received so far; 0 for an unknown upload.
  int64_t CommittedSize(const UploadName& name) const;
  // Aborted (UPLOAD_BUSY): another writer has it.
  absl::StatusOr<std::unique_ptr<BlobUpload>> OpenUpload(
      const UploadName& name);

 private:
  friend class BlobUpload;
  explicit BlobStore(std::string root) : root_(std::move(root)) {}
  std::string UploadPath(const UploadName& name) const;
  void Release(const std::string& upload_path);

  const std::string root_;
  absl::Mutex mutex_;
  std::set<std::string> busy_uploads_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_BLOB_STORE_H_
