// The controller: flags and wiring.
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/server.h"
#include "services/common/stop_signal.h"
#include "services/controller/controller.h"
#include "services/controller/fixed_runner.h"
#include "services/controller/local_runner.h"

ABSL_FLAG(std::string, data_dir, "",
          "Folder of the database and the artifacts. Made if missing.");
ABSL_FLAG(std::string, host, "127.0.0.1", "Address to listen on.");
ABSL_FLAG(int, port, 7070, "Port to listen on; 0 picks a free one.");
ABSL_FLAG(std::string, port_file, "",
          "File that gets host:port once the controller serves.");
ABSL_FLAG(std::string, runner, "local",
          "local: workers and inference servers are child processes. none: "
          "workers connect by themselves and nothing is deployed.");
ABSL_FLAG(std::string, bin_dir, "",
          "Folder of finetuner, exporter, evaluator and inference, for "
          "--runner=local. Default: where the controller itself is.");
ABSL_FLAG(int, lease_seconds, 15,
          "An attempt without a heartbeat for so long is given to another "
          "worker. 1 to 3600.");
ABSL_FLAG(int, threads, 0,
          "Threads of each inference server that --runner=local starts; 0: "
          "it chooses by itself.");
ABSL_FLAG(std::string, inference_endpoint, "",
          "With --runner=none, host:port of the inference server that "
          "evaluations use.");
ABSL_FLAG(std::string, inference_float_endpoint, "",
          "With --runner=none, host:port of an inference server with "
          "--activations=f32 --kv_cache=f32, for EQUIVALENCE evaluations.");

namespace onegrid::controller {
namespace {

absl::Status CheckFlags() {
  if (absl::GetFlag(FLAGS_data_dir).empty()) {
    return absl::InvalidArgumentError("--data_dir is required");
  }
  const std::string runner = absl::GetFlag(FLAGS_runner);
  if (runner != "local" && runner != "none") {
    return absl::InvalidArgumentError(
        absl::StrCat("--runner is '", runner, "', expected local or none"));
  }
  const int lease_seconds = absl::GetFlag(FLAGS_lease_seconds);
  if (lease_seconds < 1 || lease_seconds > 3600) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--lease_seconds is ", lease_seconds, ", expected 1 to 3600"));
  }
  return absl::OkStatus();
}

// The folder of this program, or the one above it when each program has a
// folder of its own.
std::string DefaultBinDir() {
  std::error_code error;
  const std::filesystem::path self =
      std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path folder = self.parent_path();
  if (std::filesystem::exists(folder / "finetuner", error)) return folder;
  return folder.parent_path();
}

absl::StatusOr<std::unique_ptr<LocalRunner>> MakeLocalRunner(
    Controller* controller) {
  LocalRunner::Options options;
  options.bin_dir = absl::GetFlag(FLAGS_bin_dir);
  if (options.bin_dir.empty()) options.bin_dir = DefaultBinDir();
  options.data_dir = absl::GetFlag(FLAGS_data_dir);
  options.threads = absl::GetFlag(FLAGS_threads);
  options.on_change = [controller] { controller->Wake(); };
  options.on_worker_death = [controller](const std::string& worker,
                                         const std::string& problem) {
    // If the store cannot be written now the lease expires instead.
    (void)controller->workers()->LoseWorker(worker, problem);
  };
  return LocalRunner::Make(std::move(options));
}

// Writes --port_file, if there is one.
absl::Status AnnounceAddress(const std::string& address) {
  const std::string path = absl::GetFlag(FLAGS_port_file);
  if (path.empty()) return absl::OkStatus();
  return common::WriteFileAtomic(path, address);
}

absl::Status Run() {
  RETURN_IF_ERROR(CheckFlags());
  common::InstallStopSignal();
  ControllerOptions options;
  options.data_dir = absl::GetFlag(FLAGS_data_dir);
  options.lease = absl::Seconds(absl::GetFlag(FLAGS_lease_seconds));
  ASSIGN_OR_RETURN(const std::unique_ptr<Controller> controller,
                   Controller::Open(options));
  std::unique_ptr<LocalRunner> local;
  FixedRunner fixed(absl::GetFlag(FLAGS_inference_endpoint),
                    absl::GetFlag(FLAGS_inference_float_endpoint));
  InferenceRunner* runner = &fixed;
  if (absl::GetFlag(FLAGS_runner) == "local") {
    ASSIGN_OR_RETURN(local, MakeLocalRunner(controller.get()));
    runner = local.get();
    // Children of a controller that was killed died with it.
    RETURN_IF_ERROR(controller->workers()->LoseWorkers(
        kLocalWorkerPrefix, "the controller was started again"));
  }
  common::ServerOptions server_options;
  server_options.host = absl::GetFlag(FLAGS_host);
  server_options.port = absl::GetFlag(FLAGS_port);
  server_options.on_drain = [&] { controller->Stop(); };
  common::ServerRunner server(server_options);
  controller->Start(runner);
  for (const auto& service : controller->grpc_services()) {
    server.AddService(service.get());
  }
  absl::Status status = server.Start();
  if (status.ok()) {
    if (local != nullptr) {
      local->StartWorkers(server.address());
      status = local->WaitForWorkers();
    }
    // Not before the workers are there: a job would wait for them in vain.
    if (status.ok()) status = AnnounceAddress(server.address());
    if (status.ok()) common::WaitForStop(absl::InfiniteDuration());
    // Workers hand their attempts back, so they go before the server.
    if (local != nullptr) local->StopWorkers();
  }
  std::error_code ignored;
  std::filesystem::remove(absl::GetFlag(FLAGS_port_file), ignored);
  server.Stop();
  controller->Stop();
  return status;
}

}  // namespace
}  // namespace onegrid::controller

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "The OneGrid controller: the public API, durable state, and the runner "
      "of workers and inference servers.\n\n"
      "  controller --data_dir=DIR [--port=7070] [--runner=local]");
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = onegrid::controller::Run();
  if (status.ok()) return 0;
  std::fprintf(stderr, "controller: %s\n",
               std::string(status.message()).c_str());
  return 1;
}
