#include "tests/fuzz/fuzz_input.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"

namespace onegrid::fuzz {
namespace {

// A folder that lives as long as the object.
class OwnFolder {
 public:
  OwnFolder() {
    const char* base = "/dev/shm";
    for (const char* name : {"TMPDIR", "TEST_TMPDIR"}) {
      if (const char* value = std::getenv(name)) base = value;
    }
    path_ = absl::StrCat(base, "/onegrid-fuzz-", getpid());
    std::filesystem::create_directories(path_);
  }
  ~OwnFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

std::vector<absl::string_view> Files(absl::string_view input, size_t count) {
  std::vector<absl::string_view> files;
  constexpr size_t kMarkBytes = sizeof(kFileMark) - 1;
  while (files.size() + 1 < count) {
    const size_t at = input.find(kFileMark);
    files.push_back(input.substr(0, at));
    input.remove_prefix(at == absl::string_view::npos ? input.size()
                                                      : at + kMarkBytes);
  }
  files.push_back(input);
  return files;
}

const std::string& Folder() {
  static const OwnFolder folder;
  return folder.path();
}

std::string Put(const std::string& name, absl::string_view bytes) {
  // A new file each time: a disk waits for one that is cut to be written again.
  Remove(name);
  std::string path = absl::StrCat(Folder(), "/", name);
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  Promise(file.good(), absl::StrCat("cannot write ", path));
  return path;
}

void Remove(const std::string& name) {
  std::error_code ignored;
  std::filesystem::remove(absl::StrCat(Folder(), "/", name), ignored);
}

void Promise(bool holds, absl::string_view words) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %.*s\n", static_cast<int>(words.size()),
               words.data());
  std::abort();
}

void PromiseNamed(const absl::Status& status, absl::string_view path) {
  if (status.ok()) return;
  Promise(!common::ErrorReason(status).empty(),
          absl::StrCat("an error without a reason: ", status.ToString()));
  Promise(absl::StrContains(status.message(), path),
          absl::StrCat("an error that does not name ", path, ": ",
                       status.ToString()));
}

}  // namespace onegrid::fuzz
