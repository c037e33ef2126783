#include "services/finetuner/tune_work.h"

#include "gtest/gtest.h"
#include "services/common/error_info.h"

namespace onegrid::finetuner {
namespace {

TEST(OptionsFromWorkTest, UnsetFieldsGetTheirDefaults) {
  v1::TuneWork work;
  work.mutable_tuning_job()->set_base_model("baseModels/gemma3-270m-int4");
  work.mutable_tuning_job()->mutable_lora()->set_rank(8);
  const auto options = OptionsFromWork(work, 2);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->rank, 8);
  EXPECT_EQ(options->alpha, 16);
  EXPECT_EQ(options->epochs, 1);
  EXPECT_EQ(options->sequence_tokens, 1024);
  EXPECT_EQ(options->sequences_per_step, 2);
  EXPECT_DOUBLE_EQ(options->learning_rate, 1e-3);
  EXPECT_EQ(options->checkpoint_steps, 25);
  EXPECT_EQ(options->fold_examples, 600);
  EXPECT_EQ(options->threads, 2);
  EXPECT_EQ(options->mode, TuningMode::kQloraQat);
  EXPECT_EQ(options->base_model_name, "gemma3-270m-int4");
}

TEST(OptionsFromWorkTest, GivenFieldsWin) {
  v1::TuneWork work;
  v1::TuningJob& job = *work.mutable_tuning_job();
  job.set_mode(v1::QLORA);
  job.set_seed(11);
  job.mutable_lora()->set_alpha(5);
  job.mutable_lora()->add_target_modules("q_proj");
  job.mutable_hyperparameters()->set_precision(
      v1::Hyperparameters::PRECISION_F32);
  job.mutable_hyperparameters()->set_threads(3);
  work.set_probe_tokens(300);
  work.set_max_eval_examples(20);
  const auto options = OptionsFromWork(work, 2);
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->mode, TuningMode::kQlora);
  EXPECT_EQ(options->seed, 11u);
  EXPECT_EQ(options->alpha, 5);
  EXPECT_EQ(options->target_modules.size(), 1u);
  EXPECT_EQ(options->precision, Precision::kF32);
  EXPECT_EQ(options->threads, 3);
  EXPECT_EQ(options->probe_tokens, 300);
  EXPECT_EQ(options->max_eval_examples, 20);
  EXPECT_TRUE(options->probe_as_served);
}

TEST(OptionsFromWorkTest, LoraAndDataOptionsArrive) {
  v1::TuneWork work;
  v1::LoraSpec* lora = work.mutable_tuning_job()->mutable_lora();
  lora->set_use_rslora(true);
  lora->set_lora_plus_ratio(16);
  lora->add_patterns()->set_modules("mlp.*");
  lora->mutable_patterns(0)->set_rank(4);
  work.mutable_tuning_job()->mutable_hyperparameters()->set_train_on(
      v1::LAST_ANSWER);
  work.set_format(v1::SHAREGPT);
  work.set_drop_invalid(true);
  const auto options = OptionsFromWork(work, 0);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->data.format, model::DataFormat::kShareGpt);
  EXPECT_TRUE(options->data.drop_invalid);
  EXPECT_EQ(options->data.train_on, TrainOn::kLast);
  const LoraOptions adapter = AdapterOptions(*options);
  EXPECT_EQ(adapter.lora_plus_ratio, 16);
  EXPECT_TRUE(adapter.use_rslora);
  ASSERT_EQ(adapter.patterns.size(), 1u);
  EXPECT_EQ(adapter.patterns[0].modules, "mlp.*");
  EXPECT_EQ(adapter.patterns[0].rank, 4);
}

TEST(OptionsFromWorkTest, AnInitialAdaptersShapeIsLeftOpen) {
  v1::TuneWork work;
  v1::TuningJob& job = *work.mutable_tuning_job();
  job.mutable_initial_adapter()->mutable_tensors()->set_sha256("a");
  auto options = OptionsFromWork(work, 0);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->initial_adapter, InitialAdapter::kLearn);
  EXPECT_EQ(options->rank, 0);
  EXPECT_EQ(options->alpha, 0);
  job.mutable_initial_adapter()->set_keep(true);
  job.mutable_lora()->set_rank(8);
  options = OptionsFromWork(work, 0);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->initial_adapter, InitialAdapter::kKeep);
  EXPECT_EQ(options->rank, 8);
  EXPECT_EQ(options->alpha, 0);
  job.set_mode(v1::PEQA);
  EXPECT_EQ(common::ErrorMetadata(OptionsFromWork(work, 0).status())["field"],
            "initial_adapter");
}

TEST(OptionsFromWorkTest, LossesOverAPartNeedARunningTeacher) {
  v1::TuneWork work;
  v1::DistillationSpec& teacher =
      *work.mutable_tuning_job()->mutable_distillation();
  teacher.set_vocabulary_top(64);
  const auto options = OptionsFromWork(work, 0);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->distillation.vocabulary_top, 64);
  teacher.set_top(8);
  EXPECT_EQ(common::ErrorMetadata(OptionsFromWork(work, 0).status())["field"],
            "distillation.top");
}

TEST(OptionsFromWorkTest, ValuesOutOfRangeNameTheirField) {
  v1::TuneWork work;
  work.mutable_tuning_job()->mutable_lora()->set_rank(1000);
  const auto options = OptionsFromWork(work, 0);
  EXPECT_EQ(common::ErrorReason(options.status()), "INVALID_HYPERPARAMETER");
  EXPECT_EQ(common::ErrorMetadata(options.status())["field"], "lora.rank");
}

}  // namespace
}  // namespace onegrid::finetuner
