#include "services/finetuner/ptq.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/finetuner/awq.h"
#include "services/finetuner/calibration.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/tensor_file.h"
#include "services/finetuner/text_scores.h"
#include "services/finetuner/tiny_model.h"

namespace onegrid::finetuner {
namespace {

bool GoOn(int64_t, int64_t) { return true; }

// A float model whose inputs are as uneven as a real one's: every 16th channel
// of the inputs is much stronger.
FloatCheckpoint MakeFloatCheckpoint() {
  at::set_num_threads(1);
  at::manual_seed(3);
  const GridCheckpoint tiny = MakeTinyCheckpoint(1);
  FloatCheckpoint checkpoint;
  checkpoint.config = tiny.config;
  checkpoint.specs = tiny.specs;
  checkpoint.norms = tiny.norms;
  checkpoint.embedding = DequantizeTensor(tiny.embedding);
  for (const model::LinearSpec& spec : tiny.specs) {
    at::Tensor w = 0.15 * at::randn({spec.out, spec.in});
    if (spec.kind == "v_proj" || spec.kind == "up_proj") {
      w.slice(0, 0, spec.out, 16).mul_(8);
    }
    checkpoint.linears.push_back(w);
  }
  const std::vector<model::NormSpec> norms = model::GemmaNorms(tiny.config);
  for (size_t n = 0; n < norms.size(); ++n) {
    if (!absl::EndsWith(norms[n].gguf_name, ".attn_norm.weight") &&
        !absl::EndsWith(norms[n].gguf_name, ".ffn_norm.weight")) {
      continue;
    }
    for (size_t i = 0; i < checkpoint.norms[n].size(); i += 16) {
      checkpoint.norms[n][i] *= 8;
    }
  }
  return checkpoint;
}

ModelGrids Int4Grids(const FloatCheckpoint& checkpoint) {
  return *GridsOf(*model::QuantPlan::Preset("int4", checkpoint.config),
                  checkpoint.config);
}

std::vector<PackedSequence> Calibration() {
  return Pack(MakeTinyExamples(150, 40, 2), ShuffledOrder(150, 1), 64);
}

// KL of the quantized model from the float model on the calibration data.
double KlAfter(const FloatCheckpoint& checkpoint, const ModelGrids& grids,
               PtqMethod method) {
  const std::vector<PackedSequence> text = Calibration();
  const auto quantized = Quantize(checkpoint, grids, method, text, GoOn);
  EXPECT_TRUE(quantized.ok()) << quantized.status();
  const FloatCheckpoint values = Dequantize(checkpoint, *quantized);
  const GemmaModel teacher(MakeSharedWeights(checkpoint, 64),
                           checkpoint.linears, at::kFloat);
  const GemmaModel student(MakeSharedWeights(values, 64), values.linears,
                           at::kFloat);
  return CompareOnText(teacher, student, text, GoOn)->kl;
}

TEST(PtqTest, FeedbackAndScalingLoseLessThanRounding) {
  const FloatCheckpoint checkpoint = MakeFloatCheckpoint();
  const ModelGrids grids = Int4Grids(checkpoint);
  const double rtn = KlAfter(checkpoint, grids, PtqMethod::kRtn);
  EXPECT_LT(KlAfter(checkpoint, grids, PtqMethod::kGptq), 0.6 * rtn);
  EXPECT_LT(KlAfter(checkpoint, grids, PtqMethod::kAwq), 0.8 * rtn);
}

TEST(AwqTest, ScalingChangesWeightsButNotTheFunction) {
  const FloatCheckpoint checkpoint = MakeFloatCheckpoint();
  const std::vector<PackedSequence> text = Calibration();
  const auto scaled =
      ScaleChannels(checkpoint, Int4Grids(checkpoint), text, GoOn);
  ASSERT_TRUE(scaled.ok()) << scaled.status();
  for (size_t i = 0; i < checkpoint.linears.size(); ++i) {
    EXPECT_FALSE(at::equal(scaled->linears[i], checkpoint.linears[i])) << i;
  }
  const GemmaModel before(MakeSharedWeights(checkpoint, 64), checkpoint.linears,
                          at::kFloat);
  const GemmaModel after(MakeSharedWeights(*scaled, 64), scaled->linears,
                         at::kFloat);
  const AttentionLayout layout = MakeAttentionLayout(text[0]);
  const at::Tensor x = before.Forward(text[0], layout, {});
  const at::Tensor y = after.Forward(text[0], layout, {});
  EXPECT_LT((x - y).abs().max().item<double>(),
            2e-5 * x.abs().max().item<double>());
}

TEST(PtqTest, AModelOnTheGridStaysAsItIs) {
  at::set_num_threads(1);
  const GridCheckpoint tiny = MakeTinyCheckpoint(1);
  FloatCheckpoint checkpoint = MakeFloatCheckpoint();
  checkpoint.linears.clear();
  for (const quant::GridMatrix& matrix : tiny.linears) {
    checkpoint.linears.push_back(DequantizeTensor(matrix));
  }
  const auto quantized = Quantize(checkpoint, Int4Grids(checkpoint),
                                  PtqMethod::kGptq, Calibration(), GoOn);
  ASSERT_TRUE(quantized.ok()) << quantized.status();
  const FloatCheckpoint values = Dequantize(checkpoint, *quantized);
  for (size_t i = 0; i < values.linears.size(); ++i) {
    EXPECT_TRUE(at::equal(values.linears[i], checkpoint.linears[i])) << i;
  }
  EXPECT_TRUE(at::equal(values.embedding, checkpoint.embedding));
}

TEST(PtqTest, SavesCodesScalesGridsAndChangedNorms) {
  const FloatCheckpoint checkpoint = MakeFloatCheckpoint();
  const auto plan = model::QuantPlan::Parse(
      "default: int4_g32\n"
      "rules:\n"
      "  - {tensors: \"blk.1.ffn_up.weight\", grid: int2_g64}\n");
  const ModelGrids grids = *GridsOf(*plan, checkpoint.config);
  const auto quantized =
      Quantize(checkpoint, grids, PtqMethod::kAwq, Calibration(), GoOn);
  ASSERT_TRUE(quantized.ok()) << quantized.status();
  const std::string path = testing::TempDir() + "/quantized.safetensors";
  ASSERT_TRUE(SaveQuantized(checkpoint, *quantized, path).ok());
  const auto file = TensorFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->Metadata("grids"),
            "{\"blk.1.ffn_up.weight\":\"int2_g64\","
            "\"token_embd.weight\":\"int8_g32\"}");
  const at::Tensor codes = *file->Get("blk.1.ffn_up.weight.codes");
  EXPECT_EQ(codes.sizes(), (std::vector<int64_t>{96, 64}));
  EXPECT_LE(codes.abs().max().item<int>(), 1);
  EXPECT_EQ(file->Get("blk.1.ffn_up.weight.scales")->sizes(),
            (std::vector<int64_t>{96, 1}));
  EXPECT_EQ(file->Get("token_embd.weight.codes")->size(0), kTinyVocab);
  EXPECT_EQ((*file->Get("blk.0.ffn_norm.weight"))[0].item<float>(),
            quantized->norms[4][0]);
  EXPECT_FALSE(file->Get("blk.0.attn_q_norm.weight").ok());
}

TEST(PtqTest, WantsTextAndStopsWhenAsked) {
  const FloatCheckpoint checkpoint = MakeFloatCheckpoint();
  const ModelGrids grids = Int4Grids(checkpoint);
  EXPECT_EQ(
      common::ErrorReason(
          Quantize(checkpoint, grids, PtqMethod::kGptq, {}, GoOn).status()),
      "EMPTY_TEXT");
  for (const char* name : {"rtn", "gptq", "awq"}) {
    EXPECT_EQ(Quantize(checkpoint, grids, *PtqMethodByName(name), Calibration(),
                       [](int64_t, int64_t) { return false; })
                  .status()
                  .code(),
              absl::StatusCode::kCancelled);
  }
  EXPECT_EQ(common::ErrorReason(PtqMethodByName("best").status()),
            "UNKNOWN_METHOD");
}

}  // namespace
}  // namespace onegrid::finetuner
