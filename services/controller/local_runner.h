// The runner of one machine: workers and inference servers are children.
#ifndef SERVICES_CONTROLLER_LOCAL_RUNNER_H_
#define SERVICES_CONTROLLER_LOCAL_RUNNER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/controller/inference_runner.h"
#include "services/controller/supervisor.h"

namespace onegrid::controller {

// Names of local workers start with this.
inline constexpr char kLocalWorkerPrefix[] = "local-";

// Thread-safe.
class LocalRunner : public InferenceRunner {
 public:
  struct Options {
    // Where finetuner, exporter, evaluator and inference are: either
    // bin_dir/NAME or bin_dir/NAME/NAME.
    std::string bin_dir;
    // Logs, port files and worker caches go below.
    std::string data_dir;
    // Threads of an inference server; 0: it chooses.
    int threads = 0;
    // A local worker has died; it is started again after the call.
    std::function<void(const std::string& worker, const std::string& problem)>
        on_worker_death;
    // The status of a server has changed.
    std::function<void()> on_change;
  };

  // NotFound (MISSING_BINARY): one of the programs is not in bin_dir.
  static absl::StatusOr<std::unique_ptr<LocalRunner>> Make(Options options);

  // Starts one worker of each kind, which connect to `controller`.
  void StartWorkers(const std::string& controller);
  // Waits until every worker serves or a stop is requested. Unavailable
  // (WORKER_FAILED_TO_START): one ended several times before it served; names
  // its last words and its log.
  absl::Status WaitForWorkers() const;
  // Returns once they are gone, at most about ten seconds later.
  void StopWorkers();

  absl::Status CheckCanDeploy() const override;
  void Start(const std::string& key, const ServerSpec& spec) override;
  ServerStatus StatusOf(const std::string& key) const override;
  void Stop(const std::string& key) override;
  std::vector<std::string> Keys() const override;

 private:
  explicit LocalRunner(Options options);
  ProcessSpec MakeSpec(const std::string& program, const std::string& name,
                       std::vector<std::string> flags) const;

  const Options options_;
  std::unique_ptr<Supervisor> supervisor_;
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_LOCAL_RUNNER_H_
