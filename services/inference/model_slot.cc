#include "services/inference/model_slot.h"

#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/log.h"
#include "services/common/path_below.h"

namespace onegrid::inference {

ModelSlot::ModelSlot(ServedModelOptions options, std::string folder,
                     Handle model)
    : options_(std::move(options)),
      folder_(std::move(folder)),
      model_(std::move(model)) {}

absl::StatusOr<std::unique_ptr<ModelSlot>> ModelSlot::Open(
    ServedModelOptions options, std::string folder) {
  ASSIGN_OR_RETURN(Handle model, ServedModel::Load(options));
  return std::unique_ptr<ModelSlot>(
      new ModelSlot(std::move(options), std::move(folder), std::move(model)));
}

ModelSlot::Handle ModelSlot::Get() const {
  absl::MutexLock lock(&mu_);
  return model_;
}

void ModelSlot::Drain() {
  absl::MutexLock lock(&mu_);
  draining_ = true;
  model_->service().Drain();
}

absl::StatusOr<ModelSlot::Handle> ModelSlot::Replace(
    const std::string& path, const std::string& artifact_sha256) {
  const std::optional<std::string> full =
      folder_.empty() ? std::nullopt : common::PathBelow(folder_, path);
  if (!full.has_value()) {
    return common::MakeError(
        absl::StatusCode::kPermissionDenied, "MODELS_NOT_ALLOWED",
        folder_.empty()
            ? "the server was started without --model_dir, so its model stays"
            : absl::StrCat("'", path.substr(0, 256),
                           "' is not a path below the server's --model_dir"));
  }
  if (loading_.exchange(true)) {
    return common::MakeError(absl::StatusCode::kAborted, "MODEL_LOADING",
                             "another model is being loaded");
  }
  const auto done = absl::MakeCleanup([this] { loading_ = false; });
  ServedModelOptions options = options_;
  options.model_path = *full;
  options.artifact_sha256 = artifact_sha256;
  ASSIGN_OR_RETURN(Handle next, ServedModel::Load(options));
  // The old one, if nobody has it any more, ends outside the lock.
  Handle last = next;
  {
    absl::MutexLock lock(&mu_);
    if (draining_) {
      return common::MakeError(absl::StatusCode::kUnavailable,
                               "SERVER_DRAINING",
                               "the server takes no more models");
    }
    model_.swap(last);
  }
  common::LogInfo("model_replaced",
                  {{"from", last->service().info().artifact_sha256()},
                   {"to", next->service().info().artifact_sha256()}});
  return next;
}

}  // namespace onegrid::inference
