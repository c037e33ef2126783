// The model that a server serves at present.
#ifndef SERVICES_INFERENCE_MODEL_SLOT_H_
#define SERVICES_INFERENCE_MODEL_SLOT_H_

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "services/inference/served_model.h"

namespace onegrid::inference {

// Replaces it while calls go on: whoever got a model keeps it to the end.
// Thread-safe.
class ModelSlot {
 public:
  using Handle = std::shared_ptr<ServedModel>;

  // Loads the first one. `folder`: what Replace may read; empty: nothing.
  // Errors of ServedModel::Load.
  static absl::StatusOr<std::unique_ptr<ModelSlot>> Open(
      ServedModelOptions options, std::string folder);

  // Never null.
  Handle Get() const;

  // Loads the GGUF at `path` with the options of Open, which then takes the
  // old one's place; on error that stays. Returns the new one.
  // PermissionDenied (MODELS_NOT_ALLOWED): there is no folder, or the path,
  // links followed, leads out of it. Aborted (MODEL_LOADING): another Replace
  // is at it. Unavailable (SERVER_DRAINING): after Drain. Errors of
  // ServedModel::Load.
  absl::StatusOr<Handle> Replace(const std::string& path,
                                 const std::string& artifact_sha256);

  // No model takes more requests, those that were replaced and still have some
  // included, and none is replaced any more.
  void Drain();

  // That of the model, with the requests of those that were replaced.
  v1::Load GetLoad() const;

 private:
  // The model, and those that were replaced and still have requests.
  std::vector<Handle> All() const ABSL_SHARED_LOCKS_REQUIRED(mu_);

  ModelSlot(ServedModelOptions options, std::string folder, Handle model);

  const ServedModelOptions options_;
  const std::string folder_;
  std::atomic<bool> loading_ = false;
  mutable absl::Mutex mu_;
  Handle model_ ABSL_GUARDED_BY(mu_);
  std::vector<std::weak_ptr<ServedModel>> replaced_ ABSL_GUARDED_BY(mu_);
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_MODEL_SLOT_H_
