#include "services/model/shard_plan.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::model {
namespace {

absl::Status InvalidSize(int64_t max_bytes, const std::string& what) {
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "INVALID_SHARD_SIZE",
      absl::StrCat("shards of ", max_bytes, " bytes: ", what),
      {{"max_shard_bytes", absl::StrCat(max_bytes)}});
}

bool ConsumeFiveDigits(absl::string_view* text) {
  if (text->size() < 5 ||
      !std::all_of(text->begin(), text->begin() + 5, absl::ascii_isdigit)) {
    return false;
  }
  text->remove_prefix(5);
  return true;
}

bool IsShardName(absl::string_view name, absl::string_view stem,
                 absl::string_view extension) {
  if (!absl::ConsumePrefix(&name, stem) ||
      !absl::ConsumeSuffix(&name, extension)) {
    return false;
  }
  if (name.empty()) return true;
  return absl::ConsumePrefix(&name, "-") && ConsumeFiveDigits(&name) &&
         absl::ConsumePrefix(&name, "-of-") && ConsumeFiveDigits(&name) &&
         name.empty();
}

}  // namespace

absl::StatusOr<std::vector<size_t>> PlanShards(absl::Span<const int64_t> bytes,
                                               int64_t max_bytes) {
  if (max_bytes < 0) return InvalidSize(max_bytes, "expected 0 or more");
  std::vector<size_t> begins = {0};
  if (max_bytes == 0) return begins;
  int64_t in_shard = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    // Not in_shard + bytes[i], which may overflow.
    if (i > begins.back() && bytes[i] > max_bytes - in_shard) {
      begins.push_back(i);
      in_shard = 0;
    }
    in_shard += bytes[i];
  }
  if (begins.size() > kShardsMax) {
    return InvalidSize(
        max_bytes, absl::StrCat("expected at most ", kShardsMax,
                                " shards, the model would have ", begins.size(),
                                ": choose a larger size"));
  }
  return begins;
}

std::string ShardName(absl::string_view stem, size_t index, size_t count,
                      absl::string_view extension) {
  if (count == 1) return absl::StrCat(stem, extension);
  return absl::StrFormat("%s-%05d-of-%05d%s", stem, index + 1, count,
                         extension);
}

absl::Status CommitAll(absl::Span<const std::unique_ptr<AtomicFile>> files) {
  for (size_t i = 0; i < files.size(); ++i) {
    const absl::Status status = files[i]->Commit();
    if (status.ok()) continue;
    for (size_t done = 0; done < i; ++done) {
      unlink(files[done]->path().c_str());
    }
    return status;
  }
  return absl::OkStatus();
}

absl::Status RemoveOtherShards(const std::string& folder,
                               absl::string_view stem,
                               absl::string_view extension,
                               absl::Span<const std::string> keep) {
  std::error_code error;
  std::vector<std::string> others;
  const std::filesystem::directory_iterator end;
  for (std::filesystem::directory_iterator entry(folder, error);
       !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (IsShardName(name, stem, extension) &&
        std::find(keep.begin(), keep.end(), name) == keep.end()) {
      others.push_back(entry->path().string());
    }
  }
  if (error) return common::ErrnoError(error.value(), "list", folder);
  for (const std::string& path : others) {
    if (unlink(path.c_str()) != 0 && errno != ENOENT) {
      return common::ErrnoError(errno, "remove", path);
    }
  }
  return absl::OkStatus();
}

}  // namespace onegrid::model
