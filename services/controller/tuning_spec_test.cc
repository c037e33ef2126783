#include "services/controller/tuning_spec.h"

#include <cmath>
#include <string>

#include "gtest/gtest.h"
#include "services/common/error_info.h"

namespace onegrid::controller {
namespace {

TEST(TuningSpecTest, DefaultsAreThoseOfTheContract) {
  const auto job = CompleteTuningJob(v1::TuningJob());
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->mode(), v1::QLORA_QAT);
  EXPECT_EQ(job->lora().rank(), 16);
  EXPECT_EQ(job->lora().alpha(), 32);
  EXPECT_EQ(job->lora().target_modules_size(), 7);
  EXPECT_EQ(job->hyperparameters().epochs(), 1);
  EXPECT_EQ(job->hyperparameters().sequence_tokens(), 1024);
  EXPECT_EQ(job->hyperparameters().sequences_per_step(), 2);
  EXPECT_EQ(job->hyperparameters().learning_rate(), 1e-3);
  EXPECT_EQ(job->hyperparameters().checkpoint_steps(), 25);
  EXPECT_EQ(job->hyperparameters().fold_examples(), 600);
  EXPECT_EQ(job->max_attempts(), 3);
}

TEST(TuningSpecTest, OutputOnlyFieldsAreDropped) {
  v1::TuningJob job;
  job.set_state(v1::SUCCEEDED);
  job.mutable_result()->mutable_folded()->set_sha256("x");
  EXPECT_EQ(CompleteTuningJob(job)->state(), v1::JOB_STATE_UNSPECIFIED);
  EXPECT_FALSE(CompleteTuningJob(job)->has_result());
}

TEST(TuningSpecTest, LoraOptionsAreCheckedAndKept) {
  v1::TuningJob job;
  v1::LoraSpec* lora = job.mutable_lora();
  lora->add_target_modules("layers.{0-5}.mlp.*");
  lora->set_use_rslora(true);
  v1::LoraPattern* pattern = lora->add_patterns();
  pattern->set_modules("down_proj");
  pattern->set_rank(8);
  const auto complete = CompleteTuningJob(job);
  ASSERT_TRUE(complete.ok()) << complete.status();
  EXPECT_EQ(complete->lora().lora_plus_ratio(), 1);
  EXPECT_EQ(complete->lora().patterns(0).rank(), 8);
  EXPECT_TRUE(complete->lora().use_rslora());
  pattern->set_modules("lm_head");
  EXPECT_EQ(common::ErrorMetadata(CompleteTuningJob(job).status()).at("field"),
            "lora.patterns.modules");
  lora->clear_patterns();
  lora->set_use_dora(true);
  const absl::Status dora = CompleteTuningJob(job).status();
  EXPECT_EQ(common::ErrorReason(dora), "DORA_UNSUPPORTED");
  EXPECT_NE(dora.message().find("magnitude vectors"), std::string::npos);
}

TEST(TuningSpecTest, AnInitialAdapterBringsItsShape) {
  v1::TuningJob job;
  v1::InitialAdapter* adapter = job.mutable_initial_adapter();
  adapter->mutable_tensors()->set_sha256(std::string(64, 'a'));
  adapter->set_keep(true);
  const auto complete = CompleteTuningJob(job);
  ASSERT_TRUE(complete.ok()) << complete.status();
  EXPECT_EQ(complete->lora().rank(), 0);
  EXPECT_EQ(complete->lora().alpha(), 0);
  EXPECT_EQ(complete->lora().target_modules_size(), 0);
  EXPECT_TRUE(complete->initial_adapter().keep());
  // What is asked for is kept, for the worker to compare.
  job.mutable_lora()->set_rank(8);
  EXPECT_EQ(CompleteTuningJob(job)->lora().rank(), 8);
}

TEST(TuningSpecTest, ContradictionsToAnInitialAdapterAreNamed) {
  const auto field_of = [](const v1::TuningJob& job) {
    return common::ErrorMetadata(CompleteTuningJob(job).status())["field"];
  };
  v1::TuningJob good;
  good.mutable_initial_adapter()->mutable_tensors()->set_sha256(
      std::string(64, 'a'));
  v1::TuningJob job = good;
  job.mutable_initial_adapter()->clear_tensors();
  EXPECT_EQ(field_of(job), "initial_adapter.tensors.sha256");
  job = good;
  job.mutable_initial_adapter()->mutable_config()->set_sha256("x");
  EXPECT_EQ(field_of(job), "initial_adapter.config.sha256");
  for (const v1::TuningMode mode : {v1::LR_QAT, v1::PEQA, v1::FULL_QAT}) {
    job = good;
    job.set_mode(mode);
    EXPECT_EQ(field_of(job), "mode");
  }
  job = good;
  job.mutable_lora()->add_patterns()->set_modules("q_proj");
  EXPECT_EQ(field_of(job), "lora.patterns");
  job = good;
  job.mutable_lora()->set_rank(257);
  EXPECT_EQ(field_of(job), "lora.rank");
}

TEST(TuningSpecTest, ValuesOutOfRangeAreNamed) {
  const auto field_of = [](const v1::TuningJob& job) -> std::string {
    const absl::Status status = CompleteTuningJob(job).status();
    if (common::ErrorReason(status) != "INVALID_FIELD") return "";
    return common::ErrorMetadata(status).at("field");
  };
  v1::TuningJob job;
  job.mutable_lora()->set_rank(257);
  EXPECT_EQ(field_of(job), "lora.rank");
  job.clear_lora();
  job.mutable_lora()->set_dropout(1);
  EXPECT_EQ(field_of(job), "lora.dropout");
  job.clear_lora();
  job.mutable_lora()->add_target_modules("lm_head");
  EXPECT_EQ(field_of(job), "lora.target_modules");
  job.clear_lora();
  job.mutable_hyperparameters()->set_sequence_tokens(8193);
  EXPECT_EQ(field_of(job), "hyperparameters.sequence_tokens");
  job.clear_hyperparameters();
  job.mutable_hyperparameters()->set_learning_rate(std::nan(""));
  EXPECT_EQ(field_of(job), "hyperparameters.learning_rate");
  job.clear_hyperparameters();
  job.mutable_hyperparameters()->set_max_steps(-1);
  EXPECT_EQ(field_of(job), "hyperparameters.max_steps");
  job.clear_hyperparameters();
  job.set_max_attempts(101);
  EXPECT_EQ(field_of(job), "max_attempts");
}

}  // namespace
}  // namespace onegrid::controller
