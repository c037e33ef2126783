// Who starts and stops inference servers for the controller.
#ifndef SERVICES_CONTROLLER_INFERENCE_RUNNER_H_
#define SERVICES_CONTROLLER_INFERENCE_RUNNER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace onegrid::controller {

// What a server serves, and how.
struct ServerSpec {
  // An immutable GGUF file, or the first of its shards beside the others.
  std::string model_path;
  // Of several files: common::Sha256OfModel.
  std::string artifact_sha256;
  // "int8" or "f32".
  std::string activations = "int8";
  std::string kv_cache = "int8";

  bool operator==(const ServerSpec&) const = default;
};

// Where a server is.
struct ServerStatus {
  enum class State { kStopped, kStarting, kServing, kFailed };
  State state = State::kStopped;
  // "host:port" while kServing.
  std::string endpoint;
  // Times it was started again after it died.
  int restarts = 0;
  // Why, for kFailed.
  std::string problem;
};

// Keeps the servers asked for running, restarting those that die. `key` is
// the name of the resource that a server is for, with a suffix if it has two.
// Thread-safe; no method blocks for long.
class InferenceRunner {
 public:
  virtual ~InferenceRunner() = default;

  // OK if deployments can be served. FailedPrecondition (RUNNER_UNAVAILABLE).
  virtual absl::Status CheckCanDeploy() const = 0;

  // Idempotent for an equal spec; replaces the server for another one.
  virtual void Start(const std::string& key, const ServerSpec& spec) = 0;
  virtual ServerStatus StatusOf(const std::string& key) const = 0;
  // Drains and stops; StatusOf says kStopped once it is gone. Idempotent.
  virtual void Stop(const std::string& key) = 0;
  // Keys of servers that were started and are not kStopped.
  virtual std::vector<std::string> Keys() const = 0;
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_INFERENCE_RUNNER_H_
