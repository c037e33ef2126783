#include "services/finetuner/fold.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/finetuner/gptq.h"
#include "services/finetuner/tensor_file.h"
#include "services/finetuner/tiny_model.h"

namespace onegrid::finetuner {
namespace {

// `target` rounded value by value, the rule without feedback.
quant::GridMatrix RoundPlain(const at::Tensor& target,
                             const quant::GridMatrix& grid) {
  quant::GridMatrix result = grid;
  const float* values = target.const_data_ptr<float>();
  for (size_t i = 0; i < result.codes.size(); ++i) {
    result.codes[i] = quant::RoundToCode(
        values[i], result.scales[i / quant::kGroup], quant::kInt4G32);
  }
  return result;
}

TEST(GptqTest, FeedbackLosesLessThanRoundingOnSkewedInputs) {
  at::set_num_threads(1);
  const quant::GridMatrix grid = MakeTinyCheckpoint(1).linears[0];
  const at::Tensor target =
      DequantizeTensor(grid) + 0.3 * 0x1p-5 * at::randn({grid.rows, grid.cols});
  const at::Tensor x = at::mm(at::randn({500, 8}), at::randn({8, grid.cols})) +
                       0.1 * at::randn({500, grid.cols});
  const HessianFactor factor = *FactorHessian(at::mm(x.t(), x));
  const quant::GridMatrix folded = RoundWithFeedback(target, grid, factor);
  const auto error = [&](const quant::GridMatrix& matrix) {
    return at::mm(x, (DequantizeTensor(matrix) - target).t())
        .norm()
        .item<double>();
  };
  EXPECT_LT(error(folded), 0.5 * error(RoundPlain(target, grid)));
  EXPECT_EQ(folded.scales, grid.scales);
  for (const int8_t code : folded.codes) {
    EXPECT_GE(code, quant::kInt4G32.min_code);
    EXPECT_LE(code, quant::kInt4G32.max_code);
  }
}

TEST(GptqTest, AMatrixOnTheGridKeepsItsCodes) {
  at::set_num_threads(1);
  const quant::GridMatrix grid = MakeTinyCheckpoint(1).linears[0];
  const at::Tensor x = at::randn({200, grid.cols});
  EXPECT_EQ(RoundWithFeedback(DequantizeTensor(grid), grid,
                              *FactorHessian(at::mm(x.t(), x)))
                .codes,
            grid.codes);
}

TEST(GptqTest, InputsThatNeverFireAreTolerated) {
  at::Tensor x = at::randn({100, 64});
  x.narrow(1, 5, 3).zero_();
  EXPECT_TRUE(FactorHessian(at::mm(x.t(), x)).ok());
  EXPECT_FALSE(FactorHessian(at::full({64, 64}, NAN)).ok());
}

TEST(FoldTest, KeepsScalesAndWritesEveryLinear) {
  at::set_num_threads(1);
  const GridCheckpoint checkpoint = MakeTinyCheckpoint(1);
  const GemmaModel model(MakeSharedWeights(checkpoint, 64), checkpoint.linears,
                         at::kFloat);
  LoraOptions options;
  options.rank = 4;
  options.targets = {"q_proj", "up_proj"};
  LoraAdapter adapter = *LoraAdapter::Create(checkpoint.specs, options, 5);
  at::Tensor parameters = adapter.parameters();
  parameters.add_(0.05 * at::randn(parameters.sizes()));
  adapter.Refresh(at::kFloat);
  const std::vector<TokenizedExample> examples = MakeTinyExamples(40, 20, 2);
  const std::vector<PackedSequence> calibration =
      Pack(examples, ShuffledOrder(40, 1), 64);
  int64_t layers = 0;
  const auto result = Fold(checkpoint, model, adapter, calibration,
                           [&](int64_t done) { return (layers = done) > 0; });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(layers, 2);
  EXPECT_GT(result->codes_changed, 0);
  EXPECT_LT(result->codes_changed, 0.5);
  for (size_t i = 0; i < checkpoint.specs.size(); ++i) {
    EXPECT_EQ(result->linears[i].scales, checkpoint.linears[i].scales);
    const std::string& kind = checkpoint.specs[i].kind;
    EXPECT_EQ(result->linears[i].codes != checkpoint.linears[i].codes,
              kind == "q_proj" || kind == "up_proj")
        << checkpoint.specs[i].gguf_name;
  }
  const std::string path = testing::TempDir() + "/folded.safetensors";
  ASSERT_TRUE(SaveFolded(checkpoint, result->linears, false, path).ok());
  const auto file = TensorFile::Open(path);
  ASSERT_TRUE(file.ok());
  const at::Tensor codes = *file->Get("blk.1.ffn_up.weight.codes");
  EXPECT_EQ(codes.sizes(), (std::vector<int64_t>{96, 64}));
  EXPECT_EQ(codes[0][0].item<int>(), result->linears[12].codes[0]);
  EXPECT_EQ(file->Get("blk.1.ffn_up.weight.scales")->sizes(),
            (std::vector<int64_t>{96, 2}));
}

TEST(FoldTest, StopsWhenAsked) {
  const GridCheckpoint checkpoint = MakeTinyCheckpoint(1);
  const GemmaModel model(MakeSharedWeights(checkpoint, 64), checkpoint.linears,
                         at::kFloat);
  LoraAdapter adapter = *LoraAdapter::Create(checkpoint.specs, {}, 5);
  adapter.Refresh(at::kFloat);
  const std::vector<TokenizedExample> examples = MakeTinyExamples(4, 20, 2);
  EXPECT_EQ(
      Fold(checkpoint, model, adapter, Pack(examples, ShuffledOrder(4, 1), 64),
           [](int64_t) { return false; })
          .status()
          .code(),
      absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace onegrid::finetuner
