// The loop every worker binary runs: lease an attempt from the controller,
// heartbeat, do the work, report, finish.
#ifndef SERVICES_COMMON_WORKER_H_
#define SERVICES_COMMON_WORKER_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/onegrid/v1/worker.pb.h"
#include "services/common/server.h"

namespace onegrid::common {

// What a handler sees of its attempt. All methods are thread-safe.
class WorkContext {
 public:
  virtual ~WorkContext() = default;

  virtual const v1::WorkItem& item() const = 0;

  // Local path of the blob, its sha256 verified. The file belongs to a cache
  // and must not be written. Waits while the controller is away. Aborted: the
  // attempt is stale or cancelled. DataLoss: DIGEST_MISMATCH.
  virtual absl::StatusOr<std::string> Fetch(const v1::ArtifactRef& ref) = 0;

  // Stores a local file with the controller. Errors as Fetch.
  virtual absl::StatusOr<v1::ArtifactRef> Publish(
      const std::string& path, const std::string& file_name,
      const std::string& media_type) = 0;

  // Never blocks on the network: the newest value is sent about twice a
  // second by another thread.
  virtual void ReportProgress(const v1::Progress& progress) = 0;

  // Durable when it returns OK. The checkpoint's blobs must be published
  // before. Errors as Fetch; create_time is set by the controller.
  virtual absl::Status CommitCheckpoint(const v1::Checkpoint& checkpoint) = 0;

  // True when the handler should return soon with any error: the user
  // cancelled, the lease was lost, or the process is told to stop.
  virtual bool cancelled() const = 0;

  // An empty folder for this attempt, removed after it.
  virtual const std::string& scratch_dir() const = 0;
};

// Does the work. An error with code Unavailable, Aborted, DeadlineExceeded or
// ResourceExhausted is retriable: the controller starts another attempt.
using WorkHandler = std::function<absl::StatusOr<v1::WorkResult>(WorkContext&)>;

// How a worker runs.
struct WorkerOptions {
  // "host:port" of the controller.
  std::string controller;
  // Name of this process, e.g. "finetuner-0". No two live workers may share
  // one: who asks for work has dropped what was leased under the name before.
  // Default: host name and pid.
  std::string worker_name;
  // Verified blobs live under cache_dir/blobs, scratch under
  // cache_dir/scratch. Several processes may share it.
  std::string cache_dir;
  std::vector<v1::WorkKind> kinds;
  // Health and reflection are served here.
  ServerOptions server;
  // Blobs kept in the cache; the least recently used ones go first.
  int64_t cache_bytes_max = int64_t{20} << 30;
};

// Works until SIGTERM or SIGINT and returns the process's exit code: 0, or 1
// after a message on stderr when it could not start. A handler in progress
// sees cancelled() and its attempt goes back to the queue.
int RunWorker(const WorkerOptions& options, const WorkHandler& handler);

}  // namespace onegrid::common

#endif  // SERVICES_COMMON_WORKER_H_
