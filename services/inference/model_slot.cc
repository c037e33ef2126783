#include "services/inference/model_slot.h"

#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/log.h"
#include "services/common/path_below.h"

namespace onegrid::inference {
namespace {

absl::Status Draining() {
  return common::MakeError(absl::StatusCode::kUnavailable, "SERVER_DRAINING",
                           "the server takes no more models");
}

}  // namespace

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

std::vector<ModelSlot::Handle> ModelSlot::All() const {
  std::vector<Handle> all = {model_};
  for (const auto& replaced : replaced_) {
    if (Handle model = replaced.lock()) all.push_back(std::move(model));
  }
  return all;
}

void ModelSlot::Drain() {
  // Those of the handles that turn out to be the last ones end outside the
  // lock.
  std::vector<Handle> all;
  absl::MutexLock lock(&mu_);
  draining_ = true;
  all = All();
  for (const Handle& model : all) model->service().Drain();
}

v1::Load ModelSlot::GetLoad() const {
  std::vector<Handle> all;
  {
    absl::ReaderMutexLock lock(&mu_);
    all = All();
  }
  v1::Load load = all[0]->service().GetLoad();
  for (size_t i = 1; i < all.size(); ++i) {
    const v1::Load old = all[i]->service().GetLoad();
    load.set_running(load.running() + old.running());
    load.set_queued(load.queued() + old.queued());
    for (const auto& [name, count] : old.adapter_running()) {
      (*load.mutable_adapter_running())[name] += count;
    }
    for (const auto& [name, count] : old.adapter_queued()) {
      (*load.mutable_adapter_queued())[name] += count;
    }
  }
  return load;
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
  {
    absl::ReaderMutexLock lock(&mu_);
    if (draining_) return Draining();
  }
  ServedModelOptions options = options_;
  options.model_path = *full;
  options.artifact_sha256 = artifact_sha256;
  ASSIGN_OR_RETURN(Handle next, ServedModel::Load(options));
  // The old one, if nobody has it any more, ends outside the lock.
  Handle last = next;
  {
    absl::MutexLock lock(&mu_);
    if (draining_) return Draining();
    std::erase_if(replaced_, [](const auto& old) { return old.expired(); });
    replaced_.push_back(model_);
    model_.swap(last);
  }
  common::LogInfo("model_replaced",
                  {{"from", last->service().info().artifact_sha256()},
                   {"to", next->service().info().artifact_sha256()}});
  return next;
}

}  // namespace onegrid::inference
