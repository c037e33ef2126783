// The runner of a cluster: inference servers are somebody else's, and
// evaluations use those at endpoints that are told.
#ifndef SERVICES_CONTROLLER_FIXED_RUNNER_H_
#define SERVICES_CONTROLLER_FIXED_RUNNER_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "services/controller/inference_runner.h"

namespace onegrid::controller {

// Starts nothing. Deployments are refused with RUNNER_UNAVAILABLE.
class FixedRunner : public InferenceRunner {
 public:
  // Endpoints of servers that compute as served and in float; empty: none,
  // and evaluations that need one fail with RUNNER_UNAVAILABLE.
  FixedRunner(std::string served_endpoint, std::string float_endpoint)
      : served_endpoint_(std::move(served_endpoint)),
        float_endpoint_(std::move(float_endpoint)) {}

  absl::Status CheckCanDeploy() const override;
  void Start(const std::string& key, const ServerSpec& spec) override;
  ServerStatus StatusOf(const std::string& key) const override;
  void Stop(const std::string& key) override;
  std::vector<std::string> Keys() const override;

 private:
  const std::string served_endpoint_;
  const std::string float_endpoint_;
  mutable absl::Mutex mutex_;
  std::map<std::string, ServerSpec> specs_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_FIXED_RUNNER_H_
