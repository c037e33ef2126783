#include "services/common/files.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"

namespace onegrid::common {
namespace {

constexpr size_t kReadBytes = 1 << 20;

// Calls `sink` with the file's bytes, piece by piece.
template <typename Sink>
absl::Status ForEachPiece(const std::string& path, Sink sink) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoError(errno, "open", path);
  const absl::Cleanup close_fd = [fd] { ::close(fd); };
  std::string buffer(kReadBytes, '\0');
  while (true) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, "read", path);
    if (n == 0) return absl::OkStatus();
    sink(absl::string_view(buffer.data(), static_cast<size_t>(n)));
  }
}

}  // namespace

absl::Status ErrnoError(int error, absl::string_view action,
                        absl::string_view path) {
  const std::string message =
      absl::StrCat("cannot ", action, " ", path, ": ", std::strerror(error));
  absl::StatusCode code = absl::StatusCode::kInternal;
  std::string reason = "IO_ERROR";
  if (error == ENOENT || error == ENOTDIR) {
    code = absl::StatusCode::kNotFound;
    reason = "FILE_NOT_FOUND";
  } else if (error == EACCES || error == EPERM || error == EROFS) {
    code = absl::StatusCode::kPermissionDenied;
    reason = "FILE_ACCESS";
  } else if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    code = absl::StatusCode::kResourceExhausted;
    reason = "DISK_FULL";
  } else if (error == EEXIST) {
    code = absl::StatusCode::kAlreadyExists;
    reason = "FILE_EXISTS";
  }
  return MakeError(code, reason, message, {{"path", std::string(path)}});
}

absl::Status WriteAll(int fd, absl::string_view bytes, absl::string_view path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, "write", path);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

absl::Status WriteFileAtomic(const std::string& path,
                             absl::string_view contents) {
  static std::atomic<int> counter = 0;
  const std::string temporary =
      absl::StrCat(path, ".tmp.", ::getpid(), ".", counter.fetch_add(1));
  const int fd =
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoError(errno, "create", temporary);
  absl::Status status = WriteAll(fd, contents, temporary);
  if (status.ok() && ::fsync(fd) != 0) {
    status = ErrnoError(errno, "fsync", temporary);
  }
  if (::close(fd) != 0 && status.ok()) {
    status = ErrnoError(errno, "close", temporary);
  }
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    status = ErrnoError(errno, "rename", path);
  }
  if (!status.ok()) {
    ::unlink(temporary.c_str());
    return status;
  }
  const std::string folder = std::filesystem::path(path).parent_path();
  return SyncFolder(folder.empty() ? "." : folder);
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::string contents;
  RETURN_IF_ERROR(ForEachPiece(path, [&](absl::string_view piece) {
    contents.append(piece.data(), piece.size());
  }));
  return contents;
}

absl::Status SyncFolder(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return ErrnoError(errno, "open", path);
  const absl::Cleanup close_fd = [fd] { ::close(fd); };
  if (::fsync(fd) != 0) return ErrnoError(errno, "fsync", path);
  return absl::OkStatus();
}

absl::Status MakeFolder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return ErrnoError(error.value(), "create folder", path);
  return absl::OkStatus();
}

struct Sha256::Context {
  EVP_MD_CTX* evp = nullptr;
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  context_->evp = EVP_MD_CTX_new();
  EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr);
}

Sha256::~Sha256() { EVP_MD_CTX_free(context_->evp); }

void Sha256::Update(absl::string_view bytes) {
  EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size());
}

std::string Sha256::Finish() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(context_->evp, digest, &size);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest), size));
}

std::string Sha256Of(absl::string_view bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.Finish();
}

std::string Sha256OfModel(absl::Span<const std::string> file_sha256s) {
  if (file_sha256s.size() == 1) return file_sha256s[0];
  Sha256 hash;
  for (const std::string& sha256 : file_sha256s) {
    hash.Update(sha256);
    hash.Update("\n");
  }
  return hash.Finish();
}

absl::StatusOr<std::string> Sha256OfFile(const std::string& path) {
  Sha256 hash;
  RETURN_IF_ERROR(
      ForEachPiece(path, [&](absl::string_view piece) { hash.Update(piece); }));
  return hash.Finish();
}

}  // namespace onegrid::common
