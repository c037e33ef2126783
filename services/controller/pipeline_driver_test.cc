#include "services/controller/pipeline_driver.h"

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/controller/controller_testing.h"
#include "services/controller/dataset_service.h"
#include "services/controller/pipeline_service.h"
#include "services/controller/serving_driver.h"
#include "services/controller/worker_service.h"

namespace onegrid::controller {
namespace {

// A whole controller in one thread: what its loop does, and a worker that
// finishes whatever it gets, happen when the test says so.
class PipelineDriverTest : public testing::Test {
 protected:
  PipelineDriverTest()
      : runner_(/*serve_at_once=*/true),
        tuning_(fixture_.context()),
        exports_(fixture_.context()),
        evaluations_(fixture_.context()),
        datasets_(fixture_.context()),
        deployments_(fixture_.context(), &runner_),
        pipelines_(fixture_.context(), &runner_),
        serving_(fixture_.context(), &runner_),
        workers_(fixture_.context(),
                 [this](const std::string& name) {
                   return serving_.ServersOf(name);
                 }),
        driver_(fixture_.context(), &tuning_, &exports_, &evaluations_,
                &deployments_) {
    fixture_.MakeBaseModel("b");
    fixture_.MakeDataset("d");
    request_.set_pipeline_run_id("r");
    request_.mutable_pipeline_run()->set_deployment_id("p");
    v1::TuningJob* job = request_.mutable_pipeline_run()->mutable_tuning_job();
    job->set_base_model("baseModels/b");
    job->set_dataset("datasets/d");
  }

  absl::Status CreateRun() {
    return pipelines_.CreatePipelineRun(request_).status();
  }

  // One pass of the controller and one attempt of the worker. False: there
  // was no work.
  bool Step() {
    EXPECT_TRUE(driver_.Advance().ok());
    EXPECT_TRUE(serving_.Reconcile().ok());
    v1::LeaseAttemptRequest lease;
    lease.set_worker("w");
    for (const v1::WorkKind kind :
         {v1::IMPORT, v1::TUNE, v1::EXPORT, v1::EVALUATE}) {
      lease.add_kinds(kind);
    }
    const auto leased = workers_.LeaseAttempt(lease, [] { return false; });
    EXPECT_TRUE(leased.ok()) << leased.status();
    if (!leased->has_work()) return false;
    done_.push_back(leased->work().attempt().resource());
    const absl::Status status =
        workers_.FinishAttempt(Finish(leased->work())).status();
    EXPECT_TRUE(status.ok()) << status;
    return true;
  }

  v1::FinishAttemptRequest Finish(const v1::WorkItem& item) {
    v1::FinishAttemptRequest request;
    *request.mutable_attempt() = item.attempt();
    v1::WorkResult* result = request.mutable_result();
    if (item.kind() == v1::TUNE) {
      *result->mutable_tune()->mutable_probe_logits() =
          fixture_.PutBlob("probe", "probe");
      *result->mutable_tune()->mutable_served_probe_logits() =
          fixture_.PutBlob("served probe", "served probe");
    } else if (item.kind() == v1::EXPORT) {
      v1::ExportedArtifact* gguf = result->mutable_export_()->add_artifacts();
      gguf->set_format(v1::GGUF);
      for (int i = 1; i <= shards_; ++i) {
        *gguf->add_files() = fixture_.PutBlob(
            absl::StrCat("tuned ", i),
            absl::StrCat("m-0000", i, "-of-0000", shards_, ".gguf"));
      }
      *gguf->add_files() = fixture_.PutBlob("card", "README.md");
      max_shard_bytes_ = item.export_().export_().max_shard_bytes();
    } else if (item.evaluate().evaluation().kind() == v1::EQUIVALENCE) {
      EXPECT_EQ(item.evaluate().kl_float(), 1e-4);
      EXPECT_EQ(item.evaluate().top1_served(), 0.96);
      EXPECT_EQ(item.evaluate().kl_served_arithmetic(), 1e-5);
      EXPECT_TRUE(item.evaluate().has_served_probe_logits());
      EXPECT_NE(item.evaluate().float_endpoint(), "");
      measured_sha256_ = item.evaluate().artifact_sha256();
      result->mutable_evaluate()->mutable_equivalence()->set_verdict(verdict_);
    } else {
      result->mutable_evaluate()->mutable_metrics()->set_accuracy(90);
    }
    return request;
  }

  void RunToTheEnd() {
    for (int i = 0; i < 20; ++i) Step();
  }

  v1::PipelineRun Run() {
    v1::GetPipelineRunRequest request;
    request.set_name("pipelineRuns/r");
    return *pipelines_.GetPipelineRun(request);
  }

  std::vector<v1::Event> Watch(int64_t after) {
    v1::WatchEventsRequest request;
    request.set_name("pipelineRuns/r");
    request.set_after_sequence(after);
    std::vector<v1::Event> events;
    const absl::Status status = pipelines_.WatchEvents(
        request,
        [&](const v1::Event& event) {
          events.push_back(event);
          return true;
        },
        [] { return false; });
    EXPECT_TRUE(status.ok()) << status;
    return events;
  }

  ControllerFixture fixture_;
  FakeRunner runner_;
  TuningService tuning_;
  ExportService exports_;
  EvaluationService evaluations_;
  DatasetService datasets_;
  DeploymentService deployments_;
  PipelineService pipelines_;
  ServingDriver serving_;
  WorkerService workers_;
  PipelineDriver driver_;
  v1::CreatePipelineRunRequest request_;
  v1::EquivalenceReport::Verdict verdict_ = v1::EquivalenceReport::PASSED;
  std::vector<std::string> done_;
  int shards_ = 1;  // Of the exported GGUF.
  int64_t max_shard_bytes_ = 0;
  std::string measured_sha256_;
};

TEST_F(PipelineDriverTest, EachStepIsDoneOnceAndTheModelIsServed) {
  ASSERT_TRUE(CreateRun().ok());
  RunToTheEnd();
  EXPECT_EQ(Run().state(), v1::SUCCEEDED) << Run().DebugString();
  const std::vector<std::string> expected = {
      "tuningJobs/r-tune", "exports/r-export", "evaluations/r-verify",
      "evaluations/r-served"};
  EXPECT_EQ(done_, expected);
  EXPECT_EQ(runner_.Keys(), std::vector<std::string>{"deployments/p"});
}

TEST_F(PipelineDriverTest, AModelInShardsIsServedByItsFirst) {
  shards_ = 2;
  request_.mutable_pipeline_run()->set_max_shard_bytes(7);
  ASSERT_TRUE(CreateRun().ok());
  RunToTheEnd();
  EXPECT_EQ(Run().state(), v1::SUCCEEDED) << Run().DebugString();
  EXPECT_EQ(max_shard_bytes_, 7);
  const ServerSpec spec = runner_.SpecOf("deployments/p");
  EXPECT_TRUE(absl::EndsWith(spec.model_path, "/m-00001-of-00002.gguf"));
  const std::string second =
      absl::StrReplaceAll(spec.model_path, {{"m-00001", "m-00002"}});
  EXPECT_EQ(*common::ReadFile(spec.model_path), "tuned 1");
  EXPECT_EQ(*common::ReadFile(second), "tuned 2");
  EXPECT_EQ(spec.artifact_sha256,
            common::Sha256OfModel(
                {common::Sha256Of("tuned 1"), common::Sha256Of("tuned 2")}));
  EXPECT_EQ(spec.artifact_sha256, measured_sha256_);
}

TEST_F(PipelineDriverTest, ANegativeShardSizeIsRefusedByName) {
  request_.mutable_pipeline_run()->set_max_shard_bytes(-1);
  const absl::Status status = CreateRun();
  EXPECT_EQ(common::ErrorReason(status), "INVALID_FIELD");
  EXPECT_TRUE(absl::StrContains(status.message(), "max_shard_bytes"));
}

TEST_F(PipelineDriverTest, ModelThatIsNotTheTrainedOneIsNotServed) {
  verdict_ = v1::EquivalenceReport::FAILED_EQUIVALENCE;
  ASSERT_TRUE(CreateRun().ok());
  RunToTheEnd();
  EXPECT_EQ(Run().state(), v1::FAILED);
  EXPECT_EQ(Run().error().reason(), "EQUIVALENCE_FAILED");
  EXPECT_TRUE(runner_.Keys().empty());
  v1::CreateDeploymentRequest request;
  request.mutable_deployment()->set_model("exports/r-export");
  EXPECT_EQ(
      common::ErrorReason(deployments_.CreateDeployment(request).status()),
      "EQUIVALENCE_FAILED");
}

TEST_F(PipelineDriverTest, NewDriverGoesOnWhereTheOldOneStopped) {
  ASSERT_TRUE(CreateRun().ok());
  ASSERT_TRUE(Step());
  ASSERT_TRUE(Step());
  // All that a driver knows is in the store.
  PipelineDriver other(fixture_.context(), &tuning_, &exports_, &evaluations_,
                       &deployments_);
  ASSERT_TRUE(other.Advance().ok());
  RunToTheEnd();
  EXPECT_EQ(Run().state(), v1::SUCCEEDED);
  EXPECT_EQ(done_.size(), 4u);
}

TEST_F(PipelineDriverTest, ResumedWatchMissesNothing) {
  ASSERT_TRUE(CreateRun().ok());
  RunToTheEnd();
  const std::vector<v1::Event> all = Watch(0);
  ASSERT_GT(all.size(), 10u);
  for (size_t i = 1; i < all.size(); ++i) {
    EXPECT_GT(all[i].sequence(), all[i - 1].sequence());
  }
  const std::vector<v1::Event> rest = Watch(all[4].sequence());
  EXPECT_EQ(rest.size(), all.size() - 5);
  EXPECT_EQ(rest[0].sequence(), all[5].sequence());
  EXPECT_EQ(all.back().resource(), "pipelineRuns/r");
  EXPECT_EQ(all.back().state(), v1::SUCCEEDED);
}

TEST_F(PipelineDriverTest, DatasetInUseIsNotDeleted) {
  ASSERT_TRUE(CreateRun().ok());
  v1::DeleteDatasetRequest request;
  request.set_name("datasets/d");
  EXPECT_EQ(common::ErrorReason(datasets_.DeleteDataset(request).status()),
            "RESOURCE_IN_USE");
  RunToTheEnd();
  EXPECT_TRUE(datasets_.DeleteDataset(request).ok());
}

TEST_F(PipelineDriverTest, BadRunsAreRefusedAtOnce) {
  request_.mutable_pipeline_run()->mutable_thresholds()->set_top1_float(2);
  EXPECT_EQ(common::ErrorMetadata(CreateRun()).at("field"),
            "thresholds.top1_float");
  request_.mutable_pipeline_run()->clear_thresholds();
  v1::TuningJob* job = request_.mutable_pipeline_run()->mutable_tuning_job();
  job->set_mode(v1::QLORA);
  EXPECT_EQ(common::ErrorMetadata(CreateRun()).at("field"), "tuning_job.mode");
  job->clear_mode();
  job->set_base_model("baseModels/none");
  EXPECT_EQ(CreateRun().code(), absl::StatusCode::kNotFound);
}

TEST_F(PipelineDriverTest, ForeignResourceWithAStepsNameFailsTheRun) {
  v1::CreateTuningJobRequest foreign;
  foreign.set_tuning_job_id("r-tune");
  *foreign.mutable_tuning_job() = request_.pipeline_run().tuning_job();
  ASSERT_TRUE(tuning_.CreateTuningJob(foreign).ok());
  ASSERT_TRUE(CreateRun().ok());
  ASSERT_TRUE(driver_.Advance().ok());
  EXPECT_EQ(Run().state(), v1::FAILED);
  EXPECT_EQ(Run().error().reason(), "RESOURCE_EXISTS");
}

}  // namespace
}  // namespace onegrid::controller
