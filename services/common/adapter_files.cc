#include "services/common/adapter_files.h"

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"

namespace onegrid::common {
namespace {

bool IsFile(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error);
}

absl::Status Refuse(absl::StatusCode code, const char* reason,
                    const std::string& path, const char* what) {
  return MakeError(code, reason, absl::StrCat(path, ": ", what),
                   {{"path", path}});
}

}  // namespace

absl::StatusOr<AdapterFiles> FindAdapterFiles(const std::string& path) {
  if (IsFile(path)) {
    if (!absl::EndsWith(path, ".safetensors")) return AdapterFiles{path, ""};
    return Refuse(absl::StatusCode::kInvalidArgument, "UNSUPPORTED_ADAPTER",
                  path,
                  "name the folder, which has adapter_config.json beside it");
  }
  const std::string config = absl::StrCat(path, "/adapter_config.json");
  for (const char* name :
       {"adapter_model.safetensors", "adapter.safetensors"}) {
    const std::string tensors = absl::StrCat(path, "/", name);
    if (IsFile(tensors) && IsFile(config)) return AdapterFiles{tensors, config};
  }
  if (IsFile(absl::StrCat(path, "/adapter_model.bin"))) {
    return Refuse(absl::StatusCode::kInvalidArgument, "UNSUPPORTED_ADAPTER",
                  path,
                  "adapter_model.bin is not read: save the adapter as "
                  "safetensors");
  }
  return Refuse(absl::StatusCode::kNotFound, "MISSING_FILE", path,
                "expected a GGUF file, or a folder with adapter_config.json "
                "and adapter_model.safetensors");
}

}  // namespace onegrid::common
