// What the controller's tests share: a state folder of their own, a clock
// they set, and an inference runner that only keeps books.
#ifndef SERVICES_CONTROLLER_CONTROLLER_TESTING_H_
#define SERVICES_CONTROLLER_CONTROLLER_TESTING_H_

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "proto/onegrid/v1/base_model.pb.h"
#include "proto/onegrid/v1/dataset.pb.h"
#include "services/controller/inference_runner.h"
#include "services/controller/registry.h"

namespace onegrid::controller {

// A store, a blob store and a clock in a new folder, removed at the end.
class ControllerFixture {
 public:
  ControllerFixture();
  ~ControllerFixture();

  const ControllerContext* context() const { return &context_; }
  const std::string& folder() const { return folder_; }
  void Advance(absl::Duration duration) { now_ += duration; }
  absl::Time now() const { return now_; }

  // Stores a blob.
  v1::ArtifactRef PutBlob(absl::string_view bytes, const std::string& name);
  // A base model that was imported, and a dataset of three small splits.
  v1::BaseModel MakeBaseModel(const std::string& id);
  v1::Dataset MakeDataset(const std::string& id);

 private:
  std::string folder_;
  absl::Time now_ = absl::FromUnixSeconds(1'700'000'000);
  std::unique_ptr<Store> store_;
  std::unique_ptr<BlobStore> blobs_;
  ChangeSignal changes_;
  ControllerContext context_;
};

// Servers are what the test says they are; kStarting at first, or kServing at
// "host:KEY" if `serve_at_once`. Thread-safe.
class FakeRunner : public InferenceRunner {
 public:
  explicit FakeRunner(bool serve_at_once = false)
      : serve_at_once_(serve_at_once) {}

  absl::Status CheckCanDeploy() const override { return absl::OkStatus(); }
  void Start(const std::string& key, const ServerSpec& spec) override;
  ServerStatus StatusOf(const std::string& key) const override;
  void Stop(const std::string& key) override;
  std::vector<std::string> Keys() const override;

  void Set(const std::string& key, const ServerStatus& status);
  ServerSpec SpecOf(const std::string& key) const;

 private:
  const bool serve_at_once_;
  mutable absl::Mutex mutex_;
  std::map<std::string, std::pair<ServerSpec, ServerStatus>> servers_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_CONTROLLER_TESTING_H_
