// Runs a gRPC server the way every OneGrid binary does: health, reflection,
// port file, drain on SIGTERM.
#ifndef SERVICES_COMMON_SERVER_H_
#define SERVICES_COMMON_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/server.h"

namespace onegrid::common {

// Where a server listens and how it stops.
struct ServerOptions {
  // Loopback unless told otherwise.
  std::string host = "127.0.0.1";
  // 0 picks a free port.
  int port = 0;
  // If not empty, "host:port" is written there atomically once serving, and
  // the file is removed at the end.
  std::string port_file;
  // How long calls in progress may go on after a stop was asked for.
  absl::Duration drain_timeout = absl::Seconds(10);
  // Called once when the stop begins, before calls are cut off.
  std::function<void()> on_drain;
  // Largest message accepted.
  int message_bytes_max = 64 << 20;
};

// One server. Start and Stop from one thread; AddService before Start.
class ServerRunner {
 public:
  explicit ServerRunner(ServerOptions options);
  ~ServerRunner();
  ServerRunner(const ServerRunner&) = delete;
  ServerRunner& operator=(const ServerRunner&) = delete;

  // `service` must outlive this object. With `name` (its full proto name)
  // grpc.health.v1 answers for it by name as well as for the whole server.
  void AddService(grpc::Service* service, const std::string& name = "");

  // grpc.health.v1 answers for `name` as well, that of a model for instance.
  void AddHealthName(const std::string& name);

  // Binds, serves, reports healthy, writes the port file. InvalidArgument
  // (INVALID_FLAG): no such port. Unavailable (PORT_IN_USE): the address cannot
  // be bound. Errors of WriteFileAtomic.
  absl::Status Start();

  // "host:port" that is bound. Empty before Start.
  const std::string& address() const { return address_; }

  // grpc.health.v1 reports from now on that nothing is served, until Stop.
  // Thread-safe, also while Start and Stop are at work.
  void ReportDraining();

  // Reports unhealthy, drains, stops. Idempotent.
  void Stop();

  // Start, wait for SIGTERM or SIGINT, Stop.
  absl::Status RunUntilSignal();

 private:
  void Report(bool healthy) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  ServerOptions options_;
  std::vector<grpc::Service*> services_;
  std::vector<std::string> names_;  // of services and else, for health
  absl::Mutex mu_;
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
  // Null: not started, or stopped.
  grpc::HealthCheckServiceInterface* health_ ABSL_GUARDED_BY(mu_) = nullptr;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace onegrid::common

#endif  // SERVICES_COMMON_SERVER_H_
