#include "services/finetuner/merge_adapter.h"

#include <ATen/ATen.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/lora_adapter.h"
#include "services/finetuner/tensor_file.h"
#include "services/finetuner/tiny_model.h"

namespace onegrid::finetuner {
namespace {

class MergeAdapterTest : public testing::Test {
 protected:
  MergeAdapterTest() : grid_(MakeTinyCheckpoint(1)) {
    folder_ = testing::TempDir() + "/" +
              testing::UnitTest::GetInstance()->current_test_info()->name();
    EXPECT_TRUE(common::MakeFolder(folder_).ok());
    base_.config = grid_.config;
    base_.specs = grid_.specs;
    for (const quant::GridMatrix& matrix : grid_.linears) {
      base_.linears.push_back(DequantizeTensor(matrix));
    }
  }

  // An adapter with values in A and B, written to the folder.
  LoraAdapter Write(const LoraOptions& options) {
    LoraAdapter adapter = *LoraAdapter::Create(grid_.specs, options, 3);
    at::Tensor values = adapter.parameters();
    values.add_(0.1 * at::randn(values.sizes()));
    EXPECT_TRUE(adapter.SaveTensors(folder_ + "/adapter.safetensors").ok());
    WriteConfig(adapter.ConfigJson("tiny"));
    return adapter;
  }

  void WriteConfig(const std::string& text) {
    EXPECT_TRUE(
        common::WriteFileAtomic(folder_ + "/adapter_config.json", text).ok());
  }

  const GridCheckpoint grid_;
  FloatCheckpoint base_;
  std::string folder_;
};

TEST_F(MergeAdapterTest, AddsWhatTheTrainerComputesBeside) {
  LoraOptions plain, patterned;
  plain.rank = 4;
  plain.alpha = 8;
  patterned = plain;
  patterned.use_rslora = true;
  patterned.targets = {"q_proj", "down_proj"};
  patterned.patterns = {{"layers.0.*.q_proj", 2, 3.0}};
  for (const LoraOptions& options : {plain, patterned}) {
    const LoraAdapter adapter = Write(options);
    FloatCheckpoint merged = base_;
    for (at::Tensor& linear : merged.linears) linear = linear.clone();
    const absl::Status status = MergeAdapter(folder_, &merged);
    ASSERT_TRUE(status.ok()) << status;
    for (size_t i = 0; i < merged.linears.size(); ++i) {
      const at::Tensor delta = adapter.Delta(static_cast<int64_t>(i));
      const at::Tensor expected =
          delta.defined() ? base_.linears[i] + delta : base_.linears[i];
      EXPECT_LT((merged.linears[i] - expected).abs().max().item<float>(), 1e-6)
          << i;
    }
  }
}

TEST_F(MergeAdapterTest, RefusesWhatItCannotMerge) {
  LoraOptions options;
  options.rank = 4;
  Write(options);
  WriteConfig(R"({"r": 4, "lora_alpha": 8, "use_dora": true})");
  EXPECT_EQ(common::ErrorReason(MergeAdapter(folder_, &base_)),
            "UNSUPPORTED_ADAPTER");
  for (const char* text : {"{}", R"({"r": 4, "lora_alpha": "x"})", "[", ""}) {
    WriteConfig(text);
    EXPECT_EQ(common::ErrorReason(MergeAdapter(folder_, &base_)),
              "CORRUPT_FILE")
        << text;
  }
}

// Such values were once asked for as numbers, which threw.
TEST_F(MergeAdapterTest, RefusesAlphaPatternsWithoutNumbers) {
  LoraOptions options;
  options.rank = 4;
  Write(options);
  const std::string deep = std::string(200000, '[') + std::string(200000, ']');
  for (const std::string& value : {std::string(R"("8")"), deep}) {
    WriteConfig(absl::StrCat(R"({"r": 4, "lora_alpha": 8, "alpha_pattern": {")",
                             grid_.specs[0].hf_name, "\": ", value, "}}"));
    EXPECT_EQ(common::ErrorReason(MergeAdapter(folder_, &base_)),
              "CORRUPT_FILE");
  }
}

TEST_F(MergeAdapterTest, RefusesFilesWithoutWholePairs) {
  WriteConfig(R"({"r": 4, "lora_alpha": 8})");
  const std::string stem = "base_model.model." + grid_.specs[0].hf_name;
  const int64_t in = grid_.specs[0].in, out = grid_.specs[0].out;
  const auto merge =
      [&](const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
        TensorFileWriter writer;
        for (const auto& [name, tensor] : tensors) {
          EXPECT_TRUE(writer.Add(name, tensor).ok());
        }
        EXPECT_TRUE(writer.WriteTo(folder_ + "/adapter.safetensors").ok());
        return common::ErrorReason(MergeAdapter(folder_, &base_));
      };
  const std::string a = stem + ".lora_A.weight", b = stem + ".lora_B.weight";
  EXPECT_EQ(merge({{a, at::ones({4, in})}}), "CORRUPT_FILE");
  EXPECT_EQ(merge({{a, at::ones({4, in})}, {b, at::ones({out, 3})}}),
            "CORRUPT_FILE");
  EXPECT_EQ(merge({{a, at::ones({4, in + 1})}, {b, at::ones({out, 4})}}),
            "ADAPTER_MISMATCH");
  EXPECT_EQ(merge({{"other", at::ones({4, in})}}), "UNSUPPORTED_ADAPTER");
}

}  // namespace
}  // namespace onegrid::finetuner
