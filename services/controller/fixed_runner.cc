#include "services/controller/fixed_runner.h"

#include "services/common/error_info.h"

namespace onegrid::controller {

absl::Status FixedRunner::CheckCanDeploy() const {
  return common::MakeError(
      absl::StatusCode::kFailedPrecondition, "RUNNER_UNAVAILABLE",
      "this controller has --runner=none and starts no inference servers");
}

void FixedRunner::Start(const std::string& key, const ServerSpec& spec) {
  absl::MutexLock lock(&mutex_);
  specs_[key] = spec;
}

ServerStatus FixedRunner::StatusOf(const std::string& key) const {
  absl::MutexLock lock(&mutex_);
  ServerStatus status;
  const auto found = specs_.find(key);
  if (found == specs_.end()) return status;
  status.endpoint =
      found->second.activations == "f32" ? float_endpoint_ : served_endpoint_;
  status.state = ServerStatus::State::kServing;
  if (status.endpoint.empty()) {
    status.state = ServerStatus::State::kFailed;
    status.problem =
        "this controller has --runner=none and was given no "
        "--inference_endpoint for this";
  }
  return status;
}

void FixedRunner::Stop(const std::string& key) {
  absl::MutexLock lock(&mutex_);
  specs_.erase(key);
}

std::vector<std::string> FixedRunner::Keys() const {
  absl::MutexLock lock(&mutex_);
  std::vector<std::string> keys;
  for (const auto& [key, spec] : specs_) keys.push_back(key);
  return keys;
}

}  // namespace onegrid::controller
