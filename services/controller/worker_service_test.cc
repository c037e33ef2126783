#include "services/controller/worker_service.h"

#include <string>

#include "gtest/gtest.h"
#include "services/controller/controller_testing.h"
#include "services/controller/tuning_service.h"

namespace onegrid::controller {
namespace {

// A tuning job with two attempts, a lease of 15 s, and a clock that stands.
class WorkerServiceTest : public testing::Test {
 protected:
  WorkerServiceTest()
      : tuning_(fixture_.context()),
        workers_(fixture_.context(),
                 [](const std::string&) { return std::nullopt; }) {
    fixture_.MakeBaseModel("b");
    fixture_.MakeDataset("d");
    v1::CreateTuningJobRequest request;
    request.set_tuning_job_id("t");
    request.mutable_tuning_job()->set_base_model("baseModels/b");
    request.mutable_tuning_job()->set_dataset("datasets/d");
    request.mutable_tuning_job()->set_max_attempts(2);
    EXPECT_TRUE(tuning_.CreateTuningJob(request).ok());
  }

  v1::LeaseAttemptResponse Lease(const std::string& worker,
                                 v1::WorkKind kind = v1::TUNE) {
    v1::LeaseAttemptRequest request;
    request.set_worker(worker);
    request.add_kinds(kind);
    auto response = workers_.LeaseAttempt(request, [] { return false; });
    EXPECT_TRUE(response.ok()) << response.status();
    return *response;
  }

  absl::Status Heartbeat(const v1::Attempt& attempt) {
    v1::HeartbeatRequest request;
    *request.mutable_attempt() = attempt;
    const auto response = workers_.Heartbeat(request);
    if (response.ok()) cancel_requested_ = response->cancel_requested();
    return response.status();
  }

  absl::Status Fail(const v1::Attempt& attempt, bool retriable) {
    v1::FinishAttemptRequest request;
    *request.mutable_attempt() = attempt;
    request.mutable_error()->set_code(14);
    request.mutable_error()->set_reason("BROKEN");
    request.mutable_error()->set_message("it broke");
    request.set_retriable(retriable);
    return workers_.FinishAttempt(request).status();
  }

  v1::FinishAttemptRequest Success(const v1::Attempt& attempt) {
    v1::FinishAttemptRequest request;
    *request.mutable_attempt() = attempt;
    *request.mutable_result()->mutable_tune()->mutable_folded() =
        fixture_.PutBlob("folded", "folded.safetensors");
    return request;
  }

  v1::TuningJob Job() {
    v1::GetTuningJobRequest request;
    request.set_name("tuningJobs/t");
    return *tuning_.GetTuningJob(request);
  }

  ControllerFixture fixture_;
  TuningService tuning_;
  WorkerService workers_;
  bool cancel_requested_ = false;
};

TEST_F(WorkerServiceTest, LeaseHoldsAllThatTheWorkNeeds) {
  const v1::LeaseAttemptResponse response = Lease("w");
  ASSERT_TRUE(response.has_work());
  EXPECT_EQ(response.lease().seconds(), 15);
  EXPECT_EQ(response.work().attempt().resource(), "tuningJobs/t");
  EXPECT_EQ(response.work().attempt().epoch(), 1);
  EXPECT_EQ(response.work().tune().base().file_name(), "base.gguf");
  EXPECT_EQ(response.work().tune().test().file_name(), "test.jsonl");
  EXPECT_EQ(response.work().tune().tuning_job().lora().rank(), 16);
  EXPECT_FALSE(response.work().tune().has_resume_from());
  EXPECT_EQ(Job().state(), v1::RUNNING);
  EXPECT_EQ(Job().attempt(), 1);
}

TEST_F(WorkerServiceTest, WorkIsLeasedOnceAndByKind) {
  EXPECT_FALSE(Lease("w", v1::EXPORT).has_work());
  EXPECT_TRUE(Lease("w").has_work());
  EXPECT_FALSE(Lease("other").has_work());
}

TEST_F(WorkerServiceTest, HeartbeatsKeepALease) {
  const v1::Attempt attempt = Lease("w").work().attempt();
  for (int i = 0; i < 5; ++i) {
    fixture_.Advance(absl::Seconds(14));
    ASSERT_TRUE(Heartbeat(attempt).ok());
    ASSERT_TRUE(workers_.ExpireLeases().ok());
  }
  EXPECT_EQ(Job().state(), v1::RUNNING);
}

TEST_F(WorkerServiceTest, ExpiredAttemptIsFencedOffByTheNext) {
  const v1::Attempt old = Lease("w").work().attempt();
  fixture_.Advance(absl::Seconds(16));
  ASSERT_TRUE(workers_.ExpireLeases().ok());
  EXPECT_EQ(Job().state(), v1::QUEUED);
  EXPECT_EQ(common::ErrorReason(Heartbeat(old)), "STALE_ATTEMPT");
  const v1::Attempt current = Lease("v").work().attempt();
  EXPECT_EQ(current.epoch(), 2);
  EXPECT_EQ(Heartbeat(old).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(common::ErrorReason(workers_.FinishAttempt(Success(old)).status()),
            "STALE_ATTEMPT");
  EXPECT_TRUE(Heartbeat(current).ok());
  EXPECT_TRUE(workers_.FinishAttempt(Success(current)).ok());
  EXPECT_EQ(Job().state(), v1::SUCCEEDED);
}

TEST_F(WorkerServiceTest, LostAttemptsEndTheJobWhenNoneIsLeft) {
  for (int epoch = 1; epoch <= 2; ++epoch) {
    ASSERT_TRUE(Lease("w").has_work());
    fixture_.Advance(absl::Seconds(16));
    ASSERT_TRUE(workers_.ExpireLeases().ok());
  }
  EXPECT_EQ(Job().state(), v1::FAILED);
  EXPECT_EQ(Job().error().reason(), "ATTEMPTS_EXHAUSTED");
  EXPECT_EQ(Job().error().metadata().at("last_reason"), "LEASE_EXPIRED");
}

TEST_F(WorkerServiceTest, RetriableErrorsAreRetriedAndOthersAreNot) {
  ASSERT_TRUE(Fail(Lease("w").work().attempt(), true).ok());
  EXPECT_EQ(Job().state(), v1::QUEUED);
  ASSERT_TRUE(Fail(Lease("w").work().attempt(), false).ok());
  EXPECT_EQ(Job().state(), v1::FAILED);
  EXPECT_EQ(Job().error().reason(), "BROKEN");
}

TEST_F(WorkerServiceTest, FinishingTwiceIsFinishingOnce) {
  const v1::FinishAttemptRequest finish = Success(Lease("w").work().attempt());
  ASSERT_TRUE(workers_.FinishAttempt(finish).ok());
  EXPECT_TRUE(workers_.FinishAttempt(finish).ok());
  EXPECT_EQ(Job().state(), v1::SUCCEEDED);
}

TEST_F(WorkerServiceTest, ResultMustBeStored) {
  v1::FinishAttemptRequest finish = Success(Lease("w").work().attempt());
  finish.mutable_result()->mutable_tune()->mutable_folded()->set_sha256(
      std::string(64, '0'));
  EXPECT_EQ(common::ErrorReason(workers_.FinishAttempt(finish).status()),
            "ARTIFACT_MISSING");
  EXPECT_EQ(Job().state(), v1::RUNNING);
}

TEST_F(WorkerServiceTest, NextAttemptGoesOnFromTheLastCheckpoint) {
  v1::CommitCheckpointRequest commit;
  *commit.mutable_attempt() = Lease("w").work().attempt();
  commit.mutable_checkpoint()->set_stage("learn");
  commit.mutable_checkpoint()->set_step(25);
  *commit.mutable_checkpoint()->mutable_state() =
      fixture_.PutBlob("checkpoint", "checkpoint.safetensors");
  ASSERT_TRUE(workers_.CommitCheckpoint(commit).ok());
  fixture_.Advance(absl::Seconds(16));
  ASSERT_TRUE(workers_.ExpireLeases().ok());
  const v1::LeaseAttemptResponse next = Lease("v");
  EXPECT_EQ(next.work().tune().resume_from().step(), 25);
  EXPECT_EQ(common::ErrorReason(workers_.CommitCheckpoint(commit).status()),
            "STALE_ATTEMPT");
}

TEST_F(WorkerServiceTest, CancellationReachesTheWorkerAndWins) {
  const v1::Attempt attempt = Lease("w").work().attempt();
  v1::CancelTuningJobRequest cancel;
  cancel.set_name("tuningJobs/t");
  ASSERT_TRUE(tuning_.CancelTuningJob(cancel).ok());
  EXPECT_EQ(Job().state(), v1::CANCELLING);
  ASSERT_TRUE(Heartbeat(attempt).ok());
  EXPECT_TRUE(cancel_requested_);
  ASSERT_TRUE(workers_.FinishAttempt(Success(attempt)).ok());
  EXPECT_EQ(Job().state(), v1::CANCELLED);
  EXPECT_FALSE(Job().has_result());
  EXPECT_EQ(common::ErrorReason(tuning_.CancelTuningJob(cancel).status()),
            "ILLEGAL_TRANSITION");
}

TEST_F(WorkerServiceTest, WorkerThatAsksAgainHasDroppedItsWork) {
  const v1::Attempt old = Lease("w").work().attempt();
  const v1::Attempt current = Lease("w").work().attempt();
  EXPECT_EQ(current.epoch(), 2);
  EXPECT_EQ(common::ErrorReason(Heartbeat(old)), "STALE_ATTEMPT");
}

TEST_F(WorkerServiceTest, RestartedControllerLetsWorkersGoOn) {
  const v1::Attempt attempt = Lease("w").work().attempt();
  fixture_.Advance(absl::Minutes(5));
  ASSERT_TRUE(workers_.RenewLeases().ok());
  ASSERT_TRUE(workers_.ExpireLeases().ok());
  EXPECT_TRUE(Heartbeat(attempt).ok());
}

TEST_F(WorkerServiceTest, DeadLocalWorkersLoseTheirWork) {
  const v1::Attempt attempt = Lease("local-finetuner").work().attempt();
  ASSERT_TRUE(workers_.LoseWorkers("other-", "test").ok());
  EXPECT_TRUE(Heartbeat(attempt).ok());
  ASSERT_TRUE(workers_.LoseWorkers("local-", "test").ok());
  EXPECT_EQ(Job().state(), v1::QUEUED);
}

}  // namespace
}  // namespace onegrid::controller
