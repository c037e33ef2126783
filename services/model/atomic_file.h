#ifndef SERVICES_MODEL_ATOMIC_FILE_H_
#define SERVICES_MODEL_ATOMIC_FILE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace onegrid::model {

// Writes one file piece by piece; the name appears only when all of it is on
// disk. The bytes go to a temporary file beside `path`; Commit syncs it,
// renames it and syncs the folder. Destroyed without Commit, or after an error,
// it removes the temporary file and leaves `path` as it was; only if the folder
// cannot be synced there is no file any more.
//
// Errors: those of common::ErrnoError (a full disk is ResourceExhausted,
// DISK_FULL), each naming the path. Not thread-safe.
class AtomicFile {
 public:
  static absl::StatusOr<std::unique_ptr<AtomicFile>> Create(
      const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  absl::Status Append(absl::Span<const uint8_t> bytes);
  absl::Status Append(const std::string& bytes);
  // Appends zeros up to the next multiple of `alignment`, a positive number.
  absl::Status PadTo(int64_t alignment);
  absl::Status Commit();

  int64_t size() const { return size_; }  // bytes appended so far
  const std::string& path() const { return path_; }

 private:
  AtomicFile(std::string path, std::string temporary, int fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}

  const std::string path_;
  const std::string temporary_;
  int fd_;
  int64_t size_ = 0;
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_ATOMIC_FILE_H_
