#include "services/inference/adapter_registry.h"

#include <algorithm>
#include <map>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/common/adapter_files.h"
#include "services/common/error_info.h"
#include "services/common/file_version.h"
#include "services/common/files.h"
#include "services/common/log.h"
#include "services/common/path_below.h"
#include "services/model/adapter.h"
#include "services/model/tensor_names.h"

namespace onegrid::inference {
namespace {

constexpr size_t kMaxNameBytes = 128;
// Of what a caller wrote, in an error.
constexpr size_t kShownBytes = 256;

absl::Status CheckName(const std::string& name) {
  const bool spelled =
      std::all_of(name.begin(), name.end(), [](unsigned char c) {
        return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-' ||
               c == '/';
      });
  if (spelled && !name.empty() && name.size() <= kMaxNameBytes) {
    return absl::OkStatus();
  }
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "INVALID_REQUEST",
      absl::StrCat("an adapter's name has ", name.size(),
                   " bytes, expected 1..", kMaxNameBytes,
                   " of letters, digits, '.', '_', '-' and '/'"));
}

absl::Status NotAllowed(absl::string_view message) {
  return common::MakeError(absl::StatusCode::kPermissionDenied,
                           "ADAPTERS_NOT_ALLOWED", message);
}

absl::Status NotLoaded(const std::string& name) {
  return common::MakeError(absl::StatusCode::kNotFound, "ADAPTER_NOT_FOUND",
                           absl::StrCat("no adapter '", name, "' is loaded"),
                           {{"adapter", name}});
}

absl::Status CheckDigest(const std::string& path, const std::string& found,
                         const std::string& expected) {
  if (expected.empty() || absl::AsciiStrToLower(expected) == found) {
    return absl::OkStatus();
  }
  return common::MakeError(
      absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
      absl::StrCat(path, " has SHA-256 ", found, ", expected ",
                   expected.substr(0, kShownBytes)),
      {{"found", found}});
}

std::vector<std::string> PathsOf(const common::AdapterFiles& files) {
  std::vector<std::string> paths = {files.tensors};
  if (!files.config.empty()) paths.push_back(files.config);
  return paths;
}

// Scales are in PEFT's config, so the tensors alone would not do.
absl::StatusOr<std::string> DigestOf(const common::AdapterFiles& files) {
  std::vector<std::string> digests;
  for (const std::string& path : PathsOf(files)) {
    ASSIGN_OR_RETURN(digests.emplace_back(), common::Sha256OfFile(path));
  }
  return common::Sha256OfModel(digests);
}

}  // namespace

AdapterRegistry::AdapterRegistry(AdapterRegistryOptions options,
                                 model::GemmaConfig config,
                                 kernels::ThreadPool& pool)
    : options_(std::move(options)), config_(std::move(config)), pool_(pool) {}

absl::StatusOr<AdapterRegistry::Handle> AdapterRegistry::FindLoaded(
    const std::string& name, const std::string& sha256) const {
  const auto found = adapters_.find(name);
  if (found != adapters_.end()) {
    if (found->second->sha256() == sha256) return found->second;
    return common::MakeError(
        absl::StatusCode::kAlreadyExists, "ADAPTER_EXISTS",
        absl::StrCat("adapter '", name, "' is loaded with SHA-256 ",
                     found->second->sha256(), ", not ", sha256),
        {{"adapter", name}});
  }
  if (static_cast<int>(adapters_.size()) < options_.max_adapters) {
    return nullptr;
  }
  return common::MakeError(
      absl::StatusCode::kResourceExhausted, "TOO_MANY_ADAPTERS",
      absl::StrCat("the limit of ", options_.max_adapters,
                   " adapters is reached"),
      {{"max_adapters", absl::StrCat(options_.max_adapters)}});
}

absl::StatusOr<AdapterRegistry::Handle> AdapterRegistry::Load(
    const std::string& name, const std::string& path,
    const std::string& sha256) {
  RETURN_IF_ERROR(CheckName(name));
  ASSIGN_OR_RETURN(const common::AdapterFiles files,
                   common::FindAdapterFiles(path));
  std::map<std::string, common::FileVersion> versions;
  for (const std::string& file : PathsOf(files)) {
    ASSIGN_OR_RETURN(versions[file], common::FileVersionOf(file));
  }
  ASSIGN_OR_RETURN(const std::string digest, DigestOf(files));
  RETURN_IF_ERROR(CheckDigest(files.tensors, digest, sha256));
  {
    absl::ReaderMutexLock lock(&mu_);
    ASSIGN_OR_RETURN(Handle loaded, FindLoaded(name, digest));
    if (loaded != nullptr) return loaded;
  }
  ASSIGN_OR_RETURN(
      const auto adapter,
      model::Adapter::Open(files, model::ArchitectureName(config_.family),
                           model::GemmaLinears(config_)));
  ASSIGN_OR_RETURN(LoraAdapter lora,
                   LoraAdapter::Create(*adapter, digest, config_, pool_));
  // The digest is that of what was loaded.
  for (const auto& [file, version] : versions) {
    RETURN_IF_ERROR(common::CheckUnchanged(file, version));
  }
  auto handle = std::make_shared<const LoraAdapter>(std::move(lora));
  {
    // Another call may have been faster.
    absl::MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(Handle loaded, FindLoaded(name, digest));
    if (loaded != nullptr) return loaded;
    adapters_[name] = handle;
  }
  common::LogInfo("adapter_loaded", {{"adapter", name},
                                     {"sha256", digest},
                                     {"rank", handle->max_rank()},
                                     {"linears", handle->linears()},
                                     {"bytes", handle->bytes()}});
  return handle;
}

absl::Status AdapterRegistry::CheckAllowed() const {
  if (!options_.folder.empty()) return absl::OkStatus();
  return NotAllowed(
      "the server was started without --adapter_dir, so its adapters stay as "
      "they are");
}

absl::StatusOr<AdapterRegistry::Handle> AdapterRegistry::LoadBelow(
    const std::string& name, const std::string& path,
    const std::string& sha256) {
  RETURN_IF_ERROR(CheckAllowed());
  const std::optional<std::string> full =
      common::PathBelow(options_.folder, path);
  if (!full.has_value()) {
    return NotAllowed(
        absl::StrCat("'", path.substr(0, kShownBytes),
                     "' is not a path below the server's --adapter_dir"));
  }
  return Load(name, *full, sha256);
}

absl::Status AdapterRegistry::Unload(const std::string& name) {
  RETURN_IF_ERROR(CheckAllowed());
  RETURN_IF_ERROR(CheckName(name));
  absl::MutexLock lock(&mu_);
  if (adapters_.erase(name) == 0) return NotLoaded(name);
  common::LogInfo("adapter_unloaded", {{"adapter", name}});
  return absl::OkStatus();
}

absl::StatusOr<AdapterRegistry::Handle> AdapterRegistry::Find(
    const std::string& name) const {
  if (name.empty()) return nullptr;
  RETURN_IF_ERROR(CheckName(name));
  absl::ReaderMutexLock lock(&mu_);
  const auto found = adapters_.find(name);
  if (found == adapters_.end()) return NotLoaded(name);
  return found->second;
}

std::vector<std::pair<std::string, AdapterRegistry::Handle>>
AdapterRegistry::List() const {
  absl::ReaderMutexLock lock(&mu_);
  return {adapters_.begin(), adapters_.end()};
}

}  // namespace onegrid::inference
