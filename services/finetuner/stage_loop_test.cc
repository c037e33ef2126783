#include "services/finetuner/stage_loop.h"

#include <ATen/Parallel.h>

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/grid_parameters.h"
#include "services/finetuner/objectives.h"
#include "services/finetuner/tiny_model.h"

namespace onegrid::finetuner {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kTokens = 64;

class CountingHost : public TuningHost {
 public:
  bool cancelled() override { return false; }
  void OnProgress(const TuningProgress& progress) override { last = progress; }
  absl::Status OnCheckpoint(const TuningProgress&,
                            const std::string&) override {
    ++checkpoints;
    return checkpoint_status;
  }
  TuningProgress last;
  int checkpoints = 0;
  absl::Status checkpoint_status;
};

class StageLoopTest : public testing::Test {
 protected:
  StageLoopTest()
      : checkpoint_(MakeTinyCheckpoint(1)),
        model_(MakeSharedWeights(checkpoint_, kTokens), checkpoint_.linears,
               at::kFloat),
        examples_(MakeTinyExamples(40, 20, 2)),
        parameters_(*GridParameters::Create(checkpoint_.linears, {}, {})),
        tunable_(&model_, &parameters_, {}) {
    at::set_num_threads(1);
    options_.sequence_tokens = kTokens;
    options_.max_steps = 20;
    stage_.name = "train";
    stage_.host = &host_;
    stage_.checkpoint_steps = 5;
    stage_.checkpoint_path = testing::TempDir() + "/stage_loop.safetensors";
    stage_.eval_steps = 2;
  }

  const GridCheckpoint checkpoint_;
  GemmaModel model_;
  const std::vector<TokenizedExample> examples_;
  GridParameters parameters_;
  GridTunable tunable_;
  StageOptions options_;
  CountingHost host_;
  Stage stage_;
};

TEST_F(StageLoopTest, StopsEarlyAndGoesBackToTheBest) {
  Trainer trainer(&tunable_, examples_, options_);
  stage_.trainer = &trainer;
  stage_.patience = 3;
  // Best at step 4, the third score.
  const std::vector<double> scores = {3, 2, 1, 1.5, 1.2, 1.1, 0.5};
  size_t next = 0;
  at::Tensor best;
  stage_.evaluate = [&]() -> absl::StatusOr<double> {
    if (next == 2) best = tunable_.parameters().clone();
    return scores[next++];
  };
  std::string metrics;
  const auto speed = RunStage(stage_, &metrics);
  ASSERT_TRUE(speed.ok()) << speed.status();
  EXPECT_EQ(trainer.step(), 10);
  EXPECT_EQ(trainer.best_step(), 4);
  EXPECT_TRUE(at::equal(tunable_.parameters(), best));
  EXPECT_THAT(metrics, HasSubstr("\"validation_loss\":1.1"));
  EXPECT_GT(speed->tokens, 0);
  // At step 5, and at step 10, which is the last.
  EXPECT_EQ(host_.checkpoints, 2);
  const auto file = TensorFile::Open(stage_.checkpoint_path);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(*MetricsOf(*file), metrics);
}

TEST_F(StageLoopTest, WithoutEvaluationTheLastParametersStay) {
  options_.max_steps = 6;
  Trainer trainer(&tunable_, examples_, options_);
  stage_.trainer = &trainer;
  std::string metrics;
  ASSERT_TRUE(RunStage(stage_, &metrics).ok());
  EXPECT_EQ(trainer.step(), 6);
  EXPECT_FALSE(trainer.has_best());
  EXPECT_EQ(host_.last.step, 6);
  EXPECT_EQ(host_.last.total_steps, 6);
  EXPECT_GT(tunable_.parameters().norm().item<float>(), 0);
}

TEST_F(StageLoopTest, ErrorsOfEvaluationAndHostEndTheStage) {
  Trainer trainer(&tunable_, examples_, options_);
  stage_.trainer = &trainer;
  std::string metrics;
  host_.checkpoint_status = absl::ResourceExhaustedError("disk");
  EXPECT_EQ(RunStage(stage_, &metrics).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(trainer.step(), 5);
  stage_.evaluate = []() -> absl::StatusOr<double> {
    return absl::CancelledError("stop");
  };
  EXPECT_EQ(RunStage(stage_, &metrics).status().code(),
            absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace onegrid::finetuner
