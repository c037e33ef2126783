#include "services/controller/local_runner.h"

#include <unistd.h>

#include <filesystem>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/stop_signal.h"

namespace onegrid::controller {
namespace {

constexpr const char* kWorkers[] = {"exporter", "finetuner", "evaluator"};
constexpr char kServerPrefix[] = "server:";
// What cannot load its model or its libraries fails the same way each time.
constexpr int kStartFailuresMax = 3;

bool IsProgram(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error) &&
         ::access(path.c_str(), X_OK) == 0;
}

absl::StatusOr<std::string> FindProgram(const std::string& bin_dir,
                                        const std::string& name) {
  for (const std::string& path :
       {absl::StrCat(bin_dir, "/", name),
        absl::StrCat(bin_dir, "/", name, "/", name)}) {
    if (IsProgram(path)) return path;
  }
  return common::MakeError(absl::StatusCode::kNotFound, "MISSING_BINARY",
                           absl::StrCat("there is no program ", name, " in ",
                                        bin_dir, "; build it or set --bin_dir"),
                           {{"binary", name}, {"bin_dir", bin_dir}});
}

// A file name for a resource name: "deployments/d1" -> "deployments.d1".
std::string FileName(const std::string& key) {
  return absl::StrReplaceAll(key, {{"/", "."}, {"#", "."}, {":", "."}});
}

}  // namespace

LocalRunner::LocalRunner(Options options) : options_(std::move(options)) {
  Supervisor::Options supervisor;
  supervisor.on_change = options_.on_change;
  supervisor.on_death = [this](const std::string& name,
                               const std::string& problem) {
    if (absl::StartsWith(name, kLocalWorkerPrefix)) {
      options_.on_worker_death(name, problem);
    }
  };
  supervisor_ = std::make_unique<Supervisor>(std::move(supervisor));
}

absl::StatusOr<std::unique_ptr<LocalRunner>> LocalRunner::Make(
    Options options) {
  for (const char* name : kWorkers) {
    RETURN_IF_ERROR(FindProgram(options.bin_dir, name).status());
  }
  RETURN_IF_ERROR(FindProgram(options.bin_dir, "inference").status());
  for (const char* folder : {"/logs", "/run", "/workers"}) {
    RETURN_IF_ERROR(common::MakeFolder(options.data_dir + folder));
  }
  return absl::WrapUnique(new LocalRunner(std::move(options)));
}

ProcessSpec LocalRunner::MakeSpec(const std::string& program,
                                  const std::string& name,
                                  std::vector<std::string> flags) const {
  ProcessSpec spec;
  const absl::StatusOr<std::string> path =
      FindProgram(options_.bin_dir, program);
  // Make has seen the program; one removed since fails to execute.
  spec.argv = {path.ok() ? *path : program};
  spec.port_file =
      absl::StrCat(options_.data_dir, "/run/", FileName(name), ".port");
  spec.log_file =
      absl::StrCat(options_.data_dir, "/logs/", FileName(name), ".log");
  spec.argv.push_back("--port=0");
  spec.argv.push_back(absl::StrCat("--port_file=", spec.port_file));
  for (std::string& flag : flags) spec.argv.push_back(std::move(flag));
  return spec;
}

void LocalRunner::StartWorkers(const std::string& controller) {
  for (const std::string program : kWorkers) {
    const std::string name = absl::StrCat(kLocalWorkerPrefix, program);
    supervisor_->Want(name,
                      MakeSpec(program, name,
                               {absl::StrCat("--controller=", controller),
                                absl::StrCat("--cache_dir=", options_.data_dir,
                                             "/workers/", program),
                                absl::StrCat("--worker_name=", name)}));
  }
}

absl::Status LocalRunner::WaitForWorkers() const {
  for (const std::string program : kWorkers) {
    const std::string name = absl::StrCat(kLocalWorkerPrefix, program);
    while (!common::WaitForStop(absl::Milliseconds(20))) {
      const std::optional<ProcessStatus> status = supervisor_->StatusOf(name);
      if (!status.has_value()) break;
      if (status->state == ProcessStatus::State::kReady) break;
      if (status->restarts < kStartFailuresMax) continue;
      return common::MakeError(
          absl::StatusCode::kUnavailable, "WORKER_FAILED_TO_START",
          absl::StrCat("the ", program, " does not start: ", status->problem,
                       " (log: ", options_.data_dir, "/logs/", FileName(name),
                       ".log)"),
          {{"worker", name}, {"problem", status->problem}});
    }
  }
  return absl::OkStatus();
}

void LocalRunner::StopWorkers() {
  for (const std::string program : kWorkers) {
    supervisor_->Unwant(absl::StrCat(kLocalWorkerPrefix, program));
  }
  for (const std::string program : kWorkers) {
    const std::string name = absl::StrCat(kLocalWorkerPrefix, program);
    while (supervisor_->StatusOf(name).has_value()) {
      absl::SleepFor(absl::Milliseconds(20));
    }
  }
}

absl::Status LocalRunner::CheckCanDeploy() const { return absl::OkStatus(); }

void LocalRunner::Start(const std::string& key, const ServerSpec& spec) {
  ProcessSpec process =
      MakeSpec("inference", key,
               {absl::StrCat("--model=", spec.model_path),
                absl::StrCat("--activations=", spec.activations),
                absl::StrCat("--kv_cache=", spec.kv_cache),
                absl::StrCat("--artifact_sha256=", spec.artifact_sha256),
                absl::StrCat("--threads=", options_.threads)});
  process.start_failures_max = kStartFailuresMax;
  supervisor_->Want(kServerPrefix + key, process);
}

ServerStatus LocalRunner::StatusOf(const std::string& key) const {
  const std::optional<ProcessStatus> process =
      supervisor_->StatusOf(kServerPrefix + key);
  ServerStatus status;
  if (!process.has_value()) return status;
  status.endpoint = process->address;
  status.restarts = process->restarts;
  status.problem = process->problem;
  switch (process->state) {
    case ProcessStatus::State::kStarting:
    case ProcessStatus::State::kStopping:
      status.state = ServerStatus::State::kStarting;
      break;
    case ProcessStatus::State::kReady:
      status.state = ServerStatus::State::kServing;
      break;
    case ProcessStatus::State::kFailed:
      status.state = ServerStatus::State::kFailed;
      break;
  }
  return status;
}

void LocalRunner::Stop(const std::string& key) {
  supervisor_->Unwant(kServerPrefix + key);
}

std::vector<std::string> LocalRunner::Keys() const {
  std::vector<std::string> keys;
  for (const std::string& name : supervisor_->Names()) {
    absl::string_view key = name;
    if (absl::ConsumePrefix(&key, kServerPrefix)) keys.emplace_back(key);
  }
  return keys;
}

}  // namespace onegrid::controller
