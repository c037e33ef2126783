#include "services/finetuner/initial_adapter.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <string>

#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/finetuner/tiny_model.h"

namespace onegrid::finetuner {
namespace {

class InitialAdapterTest : public testing::Test {
 protected:
  InitialAdapterTest() : specs_(MakeTinyCheckpoint(1).specs) {
    folder_ = testing::TempDir() + "/" +
              testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::create_directories(folder_);
    files_ = {folder_ + "/adapter.safetensors",
              folder_ + "/adapter_config.json"};
    trained_.rank = 4;
    trained_.alpha = 8;
    trained_.targets = {"q_proj", "mlp.*"};
    trained_.patterns = {{"layers.0.*.q_proj", 2, 3.0}};
    trained_.use_rslora = true;
    asked_.rank = 0;
    asked_.alpha = 0;
  }

  // An adapter with values in A and B, written to the files.
  LoraAdapter Write() {
    LoraAdapter adapter = *LoraAdapter::Create(specs_, trained_, 3);
    at::Tensor values = adapter.parameters();
    values.add_(0.1 * at::randn(values.sizes()));
    EXPECT_TRUE(adapter.SaveTensors(files_.tensors).ok());
    EXPECT_TRUE(
        common::WriteFileAtomic(files_.config, adapter.ConfigJson("tiny"))
            .ok());
    return adapter;
  }

  absl::StatusOr<LoraAdapter> Load() {
    return LoadInitialAdapter(files_, "gemma3", specs_, asked_);
  }
  std::string RefusedField() {
    const absl::Status status = Load().status();
    EXPECT_EQ(
        status.ok() ? "INVALID_HYPERPARAMETER" : common::ErrorReason(status),
        "INVALID_HYPERPARAMETER");
    return status.ok() ? "" : common::ErrorMetadata(status)["field"];
  }

  const std::vector<model::LinearSpec> specs_;
  std::string folder_;
  common::AdapterFiles files_;
  LoraOptions trained_;
  LoraOptions asked_;
};

TEST_F(InitialAdapterTest, IsTheAdapterThatWasSaved) {
  const LoraAdapter saved = Write();
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_TRUE(at::equal(loaded->parameters(), saved.parameters()));
  int64_t adapted = 0;
  for (size_t i = 0; i < specs_.size(); ++i) {
    const at::Tensor expected = saved.Delta(static_cast<int64_t>(i));
    const at::Tensor found = loaded->Delta(static_cast<int64_t>(i));
    ASSERT_EQ(found.defined(), expected.defined()) << specs_[i].hf_name;
    if (!found.defined()) continue;
    ++adapted;
    EXPECT_TRUE(at::equal(found, expected)) << specs_[i].hf_name;
  }
  EXPECT_EQ(adapted, 2 * 4);
  // What it writes is read again as the same.
  EXPECT_EQ(loaded->ConfigJson("tiny"), saved.ConfigJson("tiny"));
}

TEST_F(InitialAdapterTest, ChangesTheFingerprintOfARun) {
  Write();
  const std::string first = DescribeLora(Load()->options());
  Write();
  EXPECT_NE(DescribeLora(Load()->options()), first);
}

TEST_F(InitialAdapterTest, OptionsThatAreTheAdaptersAreTaken) {
  trained_.patterns.clear();
  Write();
  asked_ = trained_;
  EXPECT_EQ(RefusedField(), "");
}

TEST_F(InitialAdapterTest, OptionsOfAnotherAdapterAreNamed) {
  trained_.use_rslora = false;
  trained_.patterns.clear();
  Write();
  const LoraOptions open = asked_;
  asked_.rank = 8;
  EXPECT_EQ(RefusedField(), "lora.rank");
  asked_ = open;
  asked_.alpha = 16;
  EXPECT_EQ(RefusedField(), "lora.alpha");
  asked_ = open;
  asked_.use_rslora = true;
  EXPECT_EQ(RefusedField(), "lora.use_rslora");
  asked_ = open;
  for (const char* targets : {"q_proj", "*_proj"}) {
    asked_.targets = {targets};
    EXPECT_EQ(RefusedField(), "lora.target_modules") << targets;
  }
}

TEST_F(InitialAdapterTest, RanksBeyondTheTrainersAreNamed) {
  trained_.patterns.clear();
  trained_.targets = {"q_proj"};
  trained_.rank = 256;
  Write();
  EXPECT_EQ(RefusedField(), "");
  EXPECT_EQ(
      common::ErrorMetadata(MakeLoraShape(257, 8, false).status())["field"],
      "lora.rank");
}

}  // namespace
}  // namespace onegrid::finetuner
