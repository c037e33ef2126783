#ifndef SERVICES_MODEL_MAPPED_FILE_H_
#define SERVICES_MODEL_MAPPED_FILE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/common/file_version.h"

namespace onegrid::model {

// A whole file mapped read-only into memory.
//
// Errors of Open: those of common::ErrnoError; FailedPrecondition
// (NOT_A_REGULAR_FILE). Each names the path.
// The file must not be truncated while it is mapped: artifacts are immutable,
// and writers here replace files by rename, which leaves the mapping alone.
// Thread-safe after Open.
class MappedFile {
 public:
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(
      const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  absl::Span<const uint8_t> bytes() const { return bytes_; }
  // Of the file that is mapped.
  const common::FileVersion& version() const { return version_; }

  // Takes the whole pages of a part out of this process's memory, until they
  // are read again. What has been copied need not be held twice.
  void DropPages(absl::Span<const uint8_t> part) const;

 private:
  MappedFile(std::string path, absl::Span<const uint8_t> bytes,
             const common::FileVersion& version)
      : path_(std::move(path)), bytes_(bytes), version_(version) {}

  const std::string path_;
  const absl::Span<const uint8_t> bytes_;
  const common::FileVersion version_;
};

// DataLoss with reason CORRUPT_FILE; the message is "PATH: WHAT".
absl::Status CorruptFile(const std::string& path, const std::string& what);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_MAPPED_FILE_H_
