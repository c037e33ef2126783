#include "services/model/gguf_shards.h"

#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/model/shard_plan.h"

namespace onegrid::model {
namespace {

constexpr char kNo[] = "split.no";
constexpr char kCount[] = "split.count";
constexpr char kTensors[] = "split.tensors.count";
// The name has five digits; llama.cpp keeps the count in 16 bits.
constexpr uint32_t kCountMax = 65535;

// What the names of its shards end in; count is more than 1.
std::string Suffix(uint32_t index, uint32_t count) {
  return ShardName("", index, count, ".gguf");
}

absl::Status Mismatch(const std::string& path, const std::string& what) {
  return common::MakeError(absl::StatusCode::kDataLoss, "SHARD_MISMATCH",
                           absl::StrCat(path, ": ", what), {{"path", path}});
}

}  // namespace

absl::StatusOr<GgufShards::Split> GgufShards::SplitOf(const GgufFile& opened) {
  Split split;
  ASSIGN_OR_RETURN(split.count, opened.GetU32(kCount));
  ASSIGN_OR_RETURN(const uint32_t index, opened.GetU32(kNo));
  ASSIGN_OR_RETURN(split.tensors, opened.GetU32(kTensors));
  if (split.count > kCountMax || index >= split.count) {
    return Mismatch(opened.path(),
                    absl::StrCat(kNo, " is ", index, " and ", kCount, " is ",
                                 split.count, ", expected a number below a ",
                                 "count of at most ", kCountMax));
  }
  const std::string suffix = Suffix(index, split.count);
  if (!absl::EndsWith(opened.path(), suffix)) {
    return Mismatch(
        opened.path(),
        absl::StrCat("is shard ", index + 1, " of ", split.count,
                     ", so its name must end in ", suffix,
                     ": without it the other shards cannot be found"));
  }
  split.prefix = opened.path().substr(0, opened.path().size() - suffix.size());
  return split;
}

absl::Status GgufShards::CheckShard(const GgufFile& shard, const Split& split,
                                    uint32_t index) {
  const std::pair<const char*, uint32_t> keys[] = {
      {kNo, index}, {kCount, split.count}, {kTensors, split.tensors}};
  for (const auto& [key, expected] : keys) {
    const absl::StatusOr<uint32_t> found = shard.GetU32(key);
    if (!found.ok() || *found != expected) {
      return Mismatch(
          shard.path(),
          absl::StrCat("is not shard ", index + 1, " of this split: expected ",
                       key, " ", expected, ", found ",
                       found.ok() ? absl::StrCat(*found) : "none"));
    }
  }
  return absl::OkStatus();
}

absl::Status GgufShards::Append(std::unique_ptr<GgufFile> shard,
                                GgufFile* whole) {
  for (auto& [key, value] : shard->metadata_) {
    // How its own data are laid out is of no matter to the whole.
    if (key == kNo || key == "general.alignment") continue;
    const auto [known, is_new] = whole->metadata_.emplace(key, value);
    if (!is_new && known->second != value) {
      return Mismatch(
          shard->path(),
          absl::StrCat("is of another model: its metadata key '", key,
                       "' differs from that of ", whole->files_[0]->path()));
    }
  }
  for (GgufFile::Tensor& tensor : shard->tensors_) {
    const size_t index = whole->tensors_.size();
    if (!whole->index_.emplace(tensor.name, index).second) {
      return common::MakeError(
          absl::StatusCode::kDataLoss, "DUPLICATE_TENSOR",
          absl::StrCat(shard->path(), ": tensor '", tensor.name,
                       "' is in another shard too"),
          {{"path", shard->path()}, {"tensor", tensor.name}});
    }
    whole->tensors_.push_back(std::move(tensor));
  }
  whole->files_.push_back(std::move(shard->files_[0]));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufShards::Join(
    std::unique_ptr<GgufFile> opened) {
  if (!opened->Has(kCount)) return opened;
  ASSIGN_OR_RETURN(const uint32_t count, opened->GetU32(kCount));
  if (count <= 1) return opened;
  ASSIGN_OR_RETURN(const Split split, SplitOf(*opened));
  const std::string path = opened->path();
  std::unique_ptr<GgufFile> whole;
  for (uint32_t i = 0; i < count; ++i) {
    const std::string name = absl::StrCat(split.prefix, Suffix(i, count));
    std::unique_ptr<GgufFile> shard;
    if (name == path) {
      shard = std::move(opened);
    } else {
      auto file = GgufFile::OpenOne(name);
      if (absl::IsNotFound(file.status())) {
        return common::MakeError(absl::StatusCode::kNotFound, "MISSING_SHARD",
                                 absl::StrCat(path, ": shard ", i + 1, " of ",
                                              count, " is missing: ", name),
                                 {{"path", path}, {"missing", name}});
      }
      if (!file.ok()) return file.status();
      shard = *std::move(file);
    }
    RETURN_IF_ERROR(CheckShard(*shard, split, i));
    if (i == 0) {
      whole = std::move(shard);
    } else {
      RETURN_IF_ERROR(Append(std::move(shard), whole.get()));
    }
  }
  if (whole->tensors_.size() != split.tensors) {
    return Mismatch(path,
                    absl::StrCat("the ", count, " shards together: expected ",
                                 split.tensors, " tensors, found ",
                                 whole->tensors_.size()));
  }
  // Copied to another file, these would make a shard of that.
  for (const char* key : {kNo, kCount, kTensors}) whole->metadata_.erase(key);
  whole->path_ = path;
  return whole;
}

}  // namespace onegrid::model
