#include "client/cli/pipeline_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/common/error_info.h"

namespace onegrid::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kFile[] = R"(
name: run1
base_model: {id: gemma, path: model.gguf}
dataset:
  id: sections
  train: data/train.jsonl
  validation: /abs/validation.jsonl
  test: data/test.jsonl
tune:
  mode: lr_qat
  teacher: big
  kl_weight: 2
  scale_learning_rate: 0.004
  early_stopping_patience: 3
  rank: 8
  learning_rate: 0.002
  target_modules: [q_proj, v_proj]
export: {max_shard_size: 2GB}
verify: {probe_tokens: 100, kl_served: 0.01}
evaluate: {base: true}
deploy: {id: served}
prompts: ["one", "two"]
)";

absl::StatusOr<PipelineFile> Parse(
    const std::string& text, const std::vector<std::string>& overrides = {}) {
  return ParsePipelineFile(text, "/folder", overrides);
}

TEST(PipelineFileTest, ReadsEverySection) {
  const absl::StatusOr<PipelineFile> file = Parse(kFile);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->name, "run1");
  EXPECT_EQ(file->base_model_path, "/folder/model.gguf");
  EXPECT_EQ(file->train_path, "/folder/data/train.jsonl");
  EXPECT_EQ(file->validation_path, "/abs/validation.jsonl");
  EXPECT_EQ(file->run.tuning_job().mode(), v1::LR_QAT);
  EXPECT_EQ(file->run.tuning_job().distillation().teacher(), "baseModels/big");
  EXPECT_EQ(file->run.tuning_job().distillation().kl_weight(), 2);
  EXPECT_EQ(file->run.tuning_job().grid().scale_learning_rate(), 0.004);
  EXPECT_EQ(file->run.tuning_job().lora().rank(), 8);
  EXPECT_EQ(file->run.tuning_job().lora().target_modules_size(), 2);
  EXPECT_DOUBLE_EQ(file->run.tuning_job().hyperparameters().learning_rate(),
                   0.002);
  EXPECT_EQ(file->run.max_shard_bytes(), 2'000'000'000);
  EXPECT_EQ(file->run.probe_tokens(), 100);
  EXPECT_DOUBLE_EQ(file->run.thresholds().kl_served(), 0.01);
  EXPECT_TRUE(file->run.evaluate_base());
  EXPECT_EQ(file->run.deployment_id(), "served");
  EXPECT_THAT(file->prompts, ElementsAre("one", "two"));
}

TEST(PipelineFileTest, OverridesReplaceAndAddKeys) {
  const absl::StatusOr<PipelineFile> file =
      Parse(kFile, {"tune.rank=4", "tune.seed=7", "name=other"});
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->name, "other");
  EXPECT_EQ(file->run.tuning_job().lora().rank(), 4);
  EXPECT_EQ(file->run.tuning_job().seed(), 7);
}

TEST(PipelineFileTest, ReadsLoraOptions) {
  const absl::StatusOr<PipelineFile> file =
      Parse(kFile, {"tune.lora_patterns=[{modules: 'mlp.*', rank: 4}, "
                    "{modules: q_proj, alpha: 8}]",
                    "tune.use_rslora=true", "tune.lora_plus_ratio=16",
                    "tune.train_on=last"});
  ASSERT_TRUE(file.ok()) << file.status();
  const v1::LoraSpec& lora = file->run.tuning_job().lora();
  ASSERT_EQ(lora.patterns_size(), 2);
  EXPECT_EQ(lora.patterns(0).modules(), "mlp.*");
  EXPECT_EQ(lora.patterns(0).rank(), 4);
  EXPECT_EQ(lora.patterns(1).alpha(), 8);
  EXPECT_TRUE(lora.use_rslora());
  EXPECT_EQ(lora.lora_plus_ratio(), 16);
  EXPECT_EQ(file->run.tuning_job().hyperparameters().train_on(),
            v1::LAST_ANSWER);
  EXPECT_THAT(Parse("tune: {lora_patterns: [{module: x}]}").status().message(),
              HasSubstr("not modules, rank or alpha"));
}

TEST(PipelineFileTest, ReadsTheAdapterToBeginWith) {
  const absl::StatusOr<PipelineFile> file =
      Parse(kFile, {"tune.adapter=peft", "tune.keep_adapter=true"});
  ASSERT_TRUE(file.ok()) << file.status();
  // Beside the file, as other paths.
  EXPECT_THAT(file->adapter_path, HasSubstr("/peft"));
  EXPECT_TRUE(file->keep_adapter);
  EXPECT_FALSE(file->run.tuning_job().has_initial_adapter());
  EXPECT_THAT(Parse(kFile, {"tune.keep_adapter=true"}).status().message(),
              HasSubstr("tune.adapter"));
}

TEST(PipelineFileTest, ReadsDatasetOptions) {
  const absl::StatusOr<PipelineFile> plain = Parse(kFile, {});
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->dataset_format, v1::DATASET_FORMAT_UNSPECIFIED);
  EXPECT_FALSE(plain->drop_invalid);
  const absl::StatusOr<PipelineFile> file =
      Parse(kFile, {"dataset.format=sharegpt", "dataset.drop_invalid=true",
                    "tune.vocabulary_top=64"});
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->dataset_format, v1::SHAREGPT);
  EXPECT_TRUE(file->drop_invalid);
  EXPECT_EQ(file->run.tuning_job().distillation().vocabulary_top(), 64);
  EXPECT_THAT(Parse(kFile, {"dataset.format=csv"}).status().message(),
              HasSubstr("alpaca"));
}

TEST(PipelineFileTest, UnknownSectionIsNamedWithItsLine) {
  const absl::Status status = Parse("name: a\ntunning: {rank: 3}\n").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(common::ErrorReason(status), "PIPELINE_FILE_INVALID");
  EXPECT_THAT(status.message(), HasSubstr("line 2"));
  EXPECT_THAT(status.message(), HasSubstr("tunning"));
}

TEST(PipelineFileTest, UnknownKeyAndWrongTypeAreNamed) {
  EXPECT_THAT(Parse("tune: {rankk: 3}").status().message(), HasSubstr("rankk"));
  EXPECT_THAT(Parse("tune: {rank: many}").status().message(),
              HasSubstr("tune.rank"));
  EXPECT_THAT(Parse("tune: {mode: full}").status().message(),
              HasSubstr("qlora_fold"));
  EXPECT_THAT(Parse("tune: 3").status().message(), HasSubstr("map"));
}

TEST(PipelineFileTest, AKeyThatIsNotATextIsNamedWithItsLine) {
  for (const char* text :
       {"name: a\n? {b: c}\n: d\n", "tune:\n  ? [rank]\n  : 3\n"}) {
    const absl::Status status = Parse(text).status();
    EXPECT_EQ(common::ErrorReason(status), "PIPELINE_FILE_INVALID") << text;
    EXPECT_THAT(status.message(), HasSubstr("line 2")) << text;
    EXPECT_THAT(status.message(), HasSubstr("key is not a text")) << text;
  }
}

TEST(PipelineFileTest, MissingKeyBadYamlAndBadOverrideAreErrors) {
  EXPECT_THAT(Parse("name: a").status().message(), HasSubstr("base_model.id"));
  EXPECT_FALSE(Parse("").ok());
  EXPECT_FALSE(Parse("a: [1").ok());
  EXPECT_FALSE(Parse(kFile, {"nonsense"}).ok());
  EXPECT_FALSE(Parse(kFile, {"a.b.c=1"}).ok());
}

}  // namespace
}  // namespace onegrid::cli
