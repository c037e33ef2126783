#include "services/model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::model {

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(
    const std::string& path) {
  // Without O_NONBLOCK opening a FIFO waits for somebody to write to it.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return common::ErrnoError(errno, "open", path);
  struct stat info;
  if (fstat(fd, &info) != 0) {
    const int error = errno;
    close(fd);
    return common::ErrnoError(error, "open", path);
  }
  if (!S_ISREG(info.st_mode)) {
    close(fd);
    return common::MakeError(
        absl::StatusCode::kFailedPrecondition, "NOT_A_REGULAR_FILE",
        absl::StrCat(path, " is not a regular file"), {{"path", path}});
  }
  const size_t size = static_cast<size_t>(info.st_size);
  void* data = nullptr;
  if (size > 0) {
    data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
      const int error = errno;
      close(fd);
      return common::ErrnoError(error, "open", path);
    }
  }
  close(fd);
  return std::unique_ptr<MappedFile>(new MappedFile(
      path, absl::MakeConstSpan(static_cast<const uint8_t*>(data), size),
      common::FileVersionOf(info)));
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) {
    munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size());
  }
}

void MappedFile::DropPages(absl::Span<const uint8_t> part) const {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(part.data());
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t last = (begin + part.size()) / page * page;
  if (first >= last) return;
  // Advice only: if it is not taken, memory is released with the file.
  madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

absl::Status CorruptFile(const std::string& path, const std::string& what) {
  return common::MakeError(absl::StatusCode::kDataLoss, "CORRUPT_FILE",
                           absl::StrCat(path, ": ", what),
                           {{"path", path}, {"problem", what}});
}

}  // namespace onegrid::model
