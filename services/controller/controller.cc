#include "services/controller/controller.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/log.h"

namespace onegrid::controller {
namespace {

// How often the thread looks for expired leases when nothing else happens.
constexpr absl::Duration kPeriod = absl::Milliseconds(500);

}  // namespace

absl::StatusOr<std::unique_ptr<Controller>> Controller::Open(
    ControllerOptions options) {
  if (!options.now) options.now = [] { return absl::Now(); };
  auto controller = absl::WrapUnique(new Controller(std::move(options)));
  RETURN_IF_ERROR(controller->OpenState());
  return controller;
}

Controller::Controller(ControllerOptions options)
    : options_(std::move(options)) {}

Controller::~Controller() {
  Stop();
  if (lock_fd_ >= 0) ::close(lock_fd_);
}

absl::Status Controller::OpenState() {
  RETURN_IF_ERROR(common::MakeFolder(options_.data_dir));
  const std::string lock = options_.data_dir + "/lock";
  lock_fd_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_fd_ < 0) return common::ErrnoError(errno, "open", lock);
  if (::flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    return common::MakeError(
        absl::StatusCode::kFailedPrecondition, "DATA_DIR_IN_USE",
        absl::StrCat("another controller uses ", options_.data_dir),
        {{"data_dir", options_.data_dir}});
  }
  ASSIGN_OR_RETURN(store_, Store::Open(options_.data_dir + "/controller.db"));
  ASSIGN_OR_RETURN(blobs_, BlobStore::Open(options_.data_dir));
  context_.store = store_.get();
  context_.blobs = blobs_.get();
  context_.changes = &changes_;
  context_.now = options_.now;
  context_.lease = options_.lease;
  artifacts_ = std::make_unique<ArtifactService>(&context_);
  base_models_ = std::make_unique<BaseModelService>(&context_);
  datasets_ = std::make_unique<DatasetService>(&context_);
  tuning_ = std::make_unique<TuningService>(&context_);
  exports_ = std::make_unique<ExportService>(&context_);
  evaluations_ = std::make_unique<EvaluationService>(&context_);
  workers_ = std::make_unique<WorkerService>(
      &context_, [this](const std::string& name) {
        return serving_driver_->ServersOf(name);
      });
  RETURN_IF_ERROR(artifacts_->Recover());
  return workers_->RenewLeases();
}

void Controller::Start(InferenceRunner* runner) {
  deployments_ = std::make_unique<DeploymentService>(&context_, runner);
  pipelines_ = std::make_unique<PipelineService>(&context_, runner);
  serving_driver_ = std::make_unique<ServingDriver>(&context_, runner);
  pipeline_driver_ =
      std::make_unique<PipelineDriver>(&context_, tuning_.get(), exports_.get(),
                                       evaluations_.get(), deployments_.get());
  grpc_services_ =
      MakeGrpcServices({artifacts_.get(), base_models_.get(), datasets_.get(),
                        tuning_.get(), exports_.get(), evaluations_.get(),
                        deployments_.get(), pipelines_.get(), workers_.get()});
  thread_ = std::thread([this] { Loop(); });
}

void Controller::Stop() {
  changes_.Close();
  if (thread_.joinable()) thread_.join();
}

void Controller::Loop() {
  while (!changes_.closed()) {
    const uint64_t version = changes_.version();
    RunOnce();
    changes_.WaitPast(version, kPeriod);
  }
}

void Controller::RunOnce() {
  // Each part goes on although another one fails; all are tried again.
  for (const absl::Status& status :
       {workers_->ExpireLeases(), pipeline_driver_->Advance(),
        serving_driver_->Reconcile()}) {
    if (!status.ok()) {
      common::LogError("controller_step_failed",
                       {{"status", status.ToString()}});
    }
  }
}

}  // namespace onegrid::controller
