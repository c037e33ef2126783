#include "services/controller/serving_driver.h"

#include <string>

#include "gtest/gtest.h"
#include "services/controller/controller_testing.h"
#include "services/controller/deployment_service.h"
#include "services/controller/evaluation_service.h"
#include "services/controller/fixed_runner.h"

namespace onegrid::controller {
namespace {

using ServerState = ServerStatus::State;

class ServingDriverTest : public testing::Test {
 protected:
  ServingDriverTest()
      : driver_(fixture_.context(), &runner_),
        deployments_(fixture_.context(), &runner_),
        evaluations_(fixture_.context()) {
    fixture_.MakeBaseModel("b");
    fixture_.MakeDataset("d");
  }

  void Deploy() {
    v1::CreateDeploymentRequest request;
    request.set_deployment_id("x");
    request.mutable_deployment()->set_model("baseModels/b");
    const auto deployment = deployments_.CreateDeployment(request);
    ASSERT_TRUE(deployment.ok()) << deployment.status();
    EXPECT_EQ(deployment->state(), v1::Deployment::STARTING);
  }

  absl::StatusOr<v1::Deployment> Deployment() {
    v1::GetDeploymentRequest request;
    request.set_name("deployments/x");
    return deployments_.GetDeployment(request);
  }

  v1::Evaluation Evaluate(const std::string& id) {
    v1::CreateEvaluationRequest request;
    request.set_evaluation_id(id);
    request.mutable_evaluation()->set_kind(v1::TASK);
    request.mutable_evaluation()->set_model("baseModels/b");
    request.mutable_evaluation()->set_dataset("datasets/d");
    const auto evaluation = evaluations_.CreateEvaluation(request);
    EXPECT_TRUE(evaluation.ok()) << evaluation.status();
    return *evaluation;
  }

  v1::Evaluation Evaluation(const std::string& id) {
    v1::GetEvaluationRequest request;
    request.set_name("evaluations/" + id);
    return *evaluations_.GetEvaluation(request);
  }

  void Reconcile() {
    const absl::Status status = driver_.Reconcile();
    ASSERT_TRUE(status.ok()) << status;
  }

  ControllerFixture fixture_;
  FakeRunner runner_;
  ServingDriver driver_;
  DeploymentService deployments_;
  EvaluationService evaluations_;
};

TEST_F(ServingDriverTest, DeploymentFollowsItsServer) {
  Deploy();
  Reconcile();
  EXPECT_EQ(runner_.SpecOf("deployments/x").kv_cache, "int8");
  runner_.Set("deployments/x", {ServerState::kServing, "host:1", 0, ""});
  Reconcile();
  EXPECT_EQ(Deployment()->state(), v1::Deployment::SERVING);
  EXPECT_EQ(Deployment()->endpoint(), "host:1");
  runner_.Set("deployments/x", {ServerState::kStarting, "", 1, ""});
  Reconcile();
  EXPECT_EQ(Deployment()->state(), v1::Deployment::STARTING);
  EXPECT_EQ(Deployment()->endpoint(), "");
  EXPECT_EQ(Deployment()->restarts(), 1);
  runner_.Set("deployments/x", {ServerState::kFailed, "", 3, "no memory"});
  Reconcile();
  EXPECT_EQ(Deployment()->state(), v1::Deployment::FAILED_TO_START);
  EXPECT_EQ(Deployment()->error().reason(), "INFERENCE_START_FAILED");
}

TEST_F(ServingDriverTest, ServingDeploymentsAreStartedAgainByANewController) {
  Deploy();
  Reconcile();
  runner_.Set("deployments/x", {ServerState::kServing, "host:1", 0, ""});
  Reconcile();
  FakeRunner new_runner;
  ServingDriver new_driver(fixture_.context(), &new_runner);
  ASSERT_TRUE(new_driver.Reconcile().ok());
  EXPECT_EQ(new_runner.Keys().size(), 1u);
  EXPECT_EQ(Deployment()->state(), v1::Deployment::STARTING);
}

TEST_F(ServingDriverTest, DeletedDeploymentIsStoppedThenGone) {
  Deploy();
  Reconcile();
  v1::DeleteDeploymentRequest request;
  request.set_name("deployments/x");
  ASSERT_TRUE(deployments_.DeleteDeployment(request).ok());
  EXPECT_EQ(Deployment()->state(), v1::Deployment::STOPPING);
  Reconcile();
  EXPECT_TRUE(runner_.Keys().empty());
  Reconcile();
  EXPECT_EQ(Deployment().status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ServingDriverTest, OneEvaluationHasServersAtATime) {
  Evaluate("one");
  Evaluate("two");
  Reconcile();
  ASSERT_EQ(runner_.Keys().size(), 1u);
  EXPECT_EQ(runner_.Keys()[0], "evaluations/one#served");
  EXPECT_FALSE(driver_.ServersOf("evaluations/one").has_value());
  runner_.Set("evaluations/one#served",
              {ServerState::kServing, "host:1", 0, ""});
  Reconcile();
  EXPECT_EQ(driver_.ServersOf("evaluations/one")->served_endpoint, "host:1");
  EXPECT_FALSE(driver_.ServersOf("evaluations/two").has_value());
}

TEST_F(ServingDriverTest, EvaluationFailsWithItsServer) {
  Evaluate("one");
  Reconcile();
  runner_.Set("evaluations/one#served",
              {ServerState::kFailed, "", 3, "corrupt file"});
  Reconcile();
  EXPECT_EQ(Evaluation("one").state(), v1::FAILED);
  EXPECT_EQ(Evaluation("one").error().reason(), "INFERENCE_START_FAILED");
  EXPECT_EQ(Evaluation("one").error().metadata().at("problem"), "corrupt file");
  EXPECT_TRUE(runner_.Keys().empty());
}

TEST_F(ServingDriverTest, ControllerWithoutRunnerRefusesDeployments) {
  FixedRunner fixed("host:1", "");
  DeploymentService deployments(fixture_.context(), &fixed);
  v1::CreateDeploymentRequest request;
  request.mutable_deployment()->set_model("baseModels/b");
  const absl::Status status = deployments.CreateDeployment(request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(common::ErrorReason(status), "RUNNER_UNAVAILABLE");
  ServingDriver driver(fixture_.context(), &fixed);
  Evaluate("one");
  ASSERT_TRUE(driver.Reconcile().ok());
  EXPECT_EQ(driver.ServersOf("evaluations/one")->served_endpoint, "host:1");
}

}  // namespace
}  // namespace onegrid::controller
