// Goal: the controller as a process, with workers and servers as children,
// finishes what it was given although any of them is killed. Method: the real
// controller binary; workers and inference are stand-ins that take time,
// commit checkpoints and go on from them (fake_worker_main.cc).
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/onegrid/v1/base_model.grpc.pb.h"
#include "proto/onegrid/v1/dataset.grpc.pb.h"
#include "proto/onegrid/v1/deployment.grpc.pb.h"
#include "proto/onegrid/v1/generation.grpc.pb.h"
#include "proto/onegrid/v1/pipeline.grpc.pb.h"
#include "proto/onegrid/v1/tuning.grpc.pb.h"
#include "services/common/artifact_client.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/grpc_status.h"

namespace onegrid {
namespace {

namespace fs = std::filesystem;

class ControllerProcessTest : public testing::Test {
 protected:
  ControllerProcessTest() {
    std::string name = testing::TempDir() + "/process.XXXXXX";
    folder_ = ::mkdtemp(name.data());
    fs::create_directory(folder_ + "/bin");
    const std::string here = fs::current_path();
    for (const char* program : {"finetuner", "exporter", "evaluator"}) {
      fs::create_symlink(here + "/tests/integration/fake_worker",
                         folder_ + "/bin/" + program);
    }
    fs::create_symlink(here + "/tests/integration/fake_inference",
                       folder_ + "/bin/inference");
  }

  ~ControllerProcessTest() override {
    if (pid_ != 0) Kill();
    std::error_code error;
    fs::remove_all(folder_, error);
  }

  // Starts the program; its output goes to the file "log".
  pid_t Spawn(const std::vector<std::string>& extra_flags) {
    std::vector<std::string> argv = {
        fs::current_path().string() + "/services/controller/controller",
        "--data_dir=" + folder_ + "/data", "--bin_dir=" + folder_ + "/bin",
        "--port=0", "--port_file=" + folder_ + "/port"};
    argv.insert(argv.end(), extra_flags.begin(), extra_flags.end());
    const pid_t pid = ::fork();
    if (pid == 0) {
      std::vector<char*> pointers;
      for (std::string& argument : argv) pointers.push_back(argument.data());
      pointers.push_back(nullptr);
      FILE* log = std::freopen((folder_ + "/log").c_str(), "a", stderr);
      if (log != nullptr) ::execv(pointers[0], pointers.data());
      ::_exit(127);
    }
    return pid;
  }

  // Starts a controller that this test talks to.
  void Start() {
    fs::remove(folder_ + "/port");
    pid_ = Spawn({});
    ASSERT_TRUE(Eventually([&] { return fs::exists(folder_ + "/port"); }));
    channel_ = grpc::CreateChannel(*common::ReadFile(folder_ + "/port"),
                                   grpc::InsecureChannelCredentials());
    pipelines_ = v1::PipelineService::NewStub(channel_);
    tuning_ = v1::TuningService::NewStub(channel_);
    deployments_ = v1::DeploymentService::NewStub(channel_);
  }

  // Kills the controller as `kill -9` does.
  void Kill() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

  // Exit code of a process that ends by itself.
  int ExitCode(pid_t pid) {
    int wait_status = 0;
    ::waitpid(pid, &wait_status, 0);
    return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1;
  }

  bool Eventually(const std::function<bool()>& condition) {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while (absl::Now() < deadline) {
      if (condition()) return true;
      absl::SleepFor(absl::Milliseconds(20));
    }
    return false;
  }

  std::string Log() { return *common::ReadFile(folder_ + "/log"); }

  v1::ArtifactRef Upload(const std::string& text, const std::string& name) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path) << text;
    common::ArtifactClient client(channel_, absl::Seconds(5));
    const auto ref = client.Upload(path, name, "text/plain");
    EXPECT_TRUE(ref.ok()) << ref.status();
    return *ref;
  }

  // Imports a model, makes a dataset and starts a run that uses both.
  void StartRun() {
    v1::CreateBaseModelRequest base;
    base.set_base_model_id("b");
    *base.mutable_base_model()->mutable_source() = Upload("source", "s.gguf");
    v1::BaseModel made_base;
    grpc::ClientContext base_context;
    ASSERT_TRUE(v1::BaseModelService::NewStub(channel_)
                    ->CreateBaseModel(&base_context, base, &made_base)
                    .ok());
    v1::CreateDatasetRequest dataset;
    dataset.set_dataset_id("d");
    const v1::ArtifactRef split =
        Upload("{\"prompt\":\"a\",\"completion\":\"b\"}\n", "s.jsonl");
    *dataset.mutable_dataset()->mutable_train()->mutable_artifact() = split;
    *dataset.mutable_dataset()->mutable_validation()->mutable_artifact() =
        split;
    *dataset.mutable_dataset()->mutable_test()->mutable_artifact() = split;
    v1::Dataset made_dataset;
    grpc::ClientContext dataset_context;
    const absl::Status status =
        common::FromGrpc(v1::DatasetService::NewStub(channel_)->CreateDataset(
            &dataset_context, dataset, &made_dataset));
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(made_dataset.test().examples(), 1);
    v1::CreatePipelineRunRequest run;
    run.set_pipeline_run_id("r");
    run.mutable_pipeline_run()->mutable_tuning_job()->set_base_model(
        "baseModels/b");
    run.mutable_pipeline_run()->mutable_tuning_job()->set_dataset("datasets/d");
    run.mutable_pipeline_run()->set_evaluate_base(true);
    run.mutable_pipeline_run()->set_deployment_id("p");
    v1::PipelineRun made_run;
    grpc::ClientContext run_context;
    const absl::Status run_status = common::FromGrpc(
        pipelines_->CreatePipelineRun(&run_context, run, &made_run));
    ASSERT_TRUE(run_status.ok()) << run_status;
  }

  v1::PipelineRun Run() {
    v1::GetPipelineRunRequest request;
    request.set_name("pipelineRuns/r");
    v1::PipelineRun run;
    grpc::ClientContext context;
    (void)pipelines_->GetPipelineRun(&context, request, &run);
    return run;
  }

  v1::TuningJob TuningJob() {
    v1::GetTuningJobRequest request;
    request.set_name("tuningJobs/r-tune");
    v1::TuningJob job;
    grpc::ClientContext context;
    (void)tuning_->GetTuningJob(&context, request, &job);
    return job;
  }

  v1::Deployment Deployment() {
    v1::GetDeploymentRequest request;
    request.set_name("deployments/p");
    v1::Deployment deployment;
    grpc::ClientContext context;
    (void)deployments_->GetDeployment(&context, request, &deployment);
    return deployment;
  }

  // Process id of the server of the deployment; 0 if it does not answer.
  pid_t ServerPid() {
    const std::string endpoint = Deployment().endpoint();
    if (endpoint.empty()) return 0;
    v1::ServerInfo info;
    grpc::ClientContext context;
    (void)v1::GenerationService::NewStub(
        grpc::CreateChannel(endpoint, grpc::InsecureChannelCredentials()))
        ->GetServerInfo(&context, {}, &info);
    return std::atoi(info.version().c_str());
  }

  // Waits for a checkpoint of the given step; returns the worker's pid.
  pid_t WaitForCheckpoint(int step) {
    EXPECT_TRUE(Eventually(
        [&] { return TuningJob().last_checkpoint().step() >= step; }));
    return static_cast<pid_t>(
        TuningJob().last_checkpoint().metrics().at("pid"));
  }

  void ExpectSucceeded() {
    ASSERT_TRUE(Eventually([&] { return Run().has_end_time(); }));
    EXPECT_EQ(Run().state(), v1::SUCCEEDED) << Run().DebugString();
    EXPECT_EQ(Run().steps_size(), 7);
  }

  // How often attempts of a resource began, from the event log.
  int CountStarts(const std::string& resource) {
    v1::WatchEventsRequest request;
    request.set_name(resource);
    grpc::ClientContext context;
    const auto reader = pipelines_->WatchEvents(&context, request);
    v1::Event event;
    int starts = 0;
    while (reader->Read(&event)) {
      if (event.resource() == resource &&
          absl::StrContains(event.message(), "started on")) {
        ++starts;
      }
    }
    EXPECT_TRUE(reader->Finish().ok());
    return starts;
  }

  std::string folder_;
  pid_t pid_ = 0;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::PipelineService::Stub> pipelines_;
  std::unique_ptr<v1::TuningService::Stub> tuning_;
  std::unique_ptr<v1::DeploymentService::Stub> deployments_;
};

TEST_F(ControllerProcessTest, RunEndsInAServedModelAndSigtermIsAGoodEnd) {
  Start();
  StartRun();
  ExpectSucceeded();
  EXPECT_EQ(TuningJob().attempt(), 1);
  EXPECT_EQ(Deployment().state(), v1::Deployment::SERVING);
  const pid_t server = ServerPid();
  EXPECT_NE(server, 0);
  ::kill(pid_, SIGTERM);
  EXPECT_EQ(ExitCode(pid_), 0);
  pid_ = 0;
  EXPECT_NE(::kill(server, 0), 0);
}

TEST_F(ControllerProcessTest, KilledControllerGoesOnFromTheLastCheckpoint) {
  Start();
  StartRun();
  const pid_t worker = WaitForCheckpoint(5);
  Kill();
  EXPECT_TRUE(Eventually([&] { return ::kill(worker, 0) != 0; }))
      << "a worker outlived its controller";
  Start();
  ExpectSucceeded();
  EXPECT_EQ(TuningJob().attempt(), 2);
  EXPECT_GE(TuningJob().result().codes_changed(), 5) << "began from the start";
  EXPECT_EQ(CountStarts("baseModels/b"), 1) << "a finished step was repeated";
  EXPECT_EQ(CountStarts("tuningJobs/r-tune"), 2);
}

TEST_F(ControllerProcessTest, KilledWorkerIsReplaced) {
  Start();
  StartRun();
  const pid_t worker = WaitForCheckpoint(5);
  ::kill(worker, SIGKILL);
  ExpectSucceeded();
  EXPECT_EQ(TuningJob().attempt(), 2);
  EXPECT_GE(TuningJob().result().codes_changed(), 5);
}

TEST_F(ControllerProcessTest, KilledServerIsStartedAgain) {
  Start();
  StartRun();
  ExpectSucceeded();
  const pid_t server = ServerPid();
  ASSERT_NE(server, 0);
  ::kill(server, SIGKILL);
  EXPECT_TRUE(Eventually([&] {
    const pid_t pid = ServerPid();
    return pid != 0 && pid != server;
  }));
  EXPECT_EQ(Deployment().restarts(), 1);
}

TEST_F(ControllerProcessTest, DeploymentServesAgainAfterARestart) {
  Start();
  StartRun();
  ExpectSucceeded();
  Kill();
  Start();
  EXPECT_TRUE(Eventually([&] { return ServerPid() != 0; }));
  EXPECT_EQ(Deployment().state(), v1::Deployment::SERVING);
}

TEST_F(ControllerProcessTest, CancelledRunStopsItsWorker) {
  Start();
  StartRun();
  WaitForCheckpoint(2);
  v1::CancelPipelineRunRequest request;
  request.set_name("pipelineRuns/r");
  v1::PipelineRun run;
  grpc::ClientContext context;
  ASSERT_TRUE(pipelines_->CancelPipelineRun(&context, request, &run).ok());
  ASSERT_TRUE(Eventually([&] { return Run().has_end_time(); }));
  EXPECT_EQ(Run().state(), v1::CANCELLED);
  EXPECT_EQ(TuningJob().state(), v1::CANCELLED);
}

TEST_F(ControllerProcessTest, MissingBinaryIsNamed) {
  fs::remove(folder_ + "/bin/evaluator");
  EXPECT_EQ(ExitCode(Spawn({})), 1);
  EXPECT_TRUE(absl::StrContains(Log(), "there is no program evaluator"));
}

TEST_F(ControllerProcessTest, TakenPortAndTakenFolderAreRefused) {
  Start();
  EXPECT_EQ(ExitCode(Spawn({})), 1);
  EXPECT_TRUE(absl::StrContains(Log(), "another controller uses"));
  const std::string address = *common::ReadFile(folder_ + "/port");
  const std::string port = address.substr(address.find(':') + 1);
  EXPECT_EQ(
      ExitCode(Spawn({"--port=" + port, "--data_dir=" + folder_ + "/other"})),
      1);
  EXPECT_TRUE(absl::StrContains(Log(), "cannot listen on"));
}

}  // namespace
}  // namespace onegrid
