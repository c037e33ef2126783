#include "services/finetuner/sensitivity.h"

#include <ATen/Parallel.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/plan_choice.h"
#include "services/finetuner/ptq.h"
#include "services/finetuner/text_scores.h"
#include "services/finetuner/tiny_model.h"

namespace onegrid::finetuner {
namespace {

bool GoOn(int64_t, int64_t) { return true; }

FloatCheckpoint MakeFloatCheckpoint() {
  at::set_num_threads(1);
  at::manual_seed(3);
  const GridCheckpoint tiny = MakeTinyCheckpoint(1);
  FloatCheckpoint checkpoint;
  checkpoint.config = tiny.config;
  checkpoint.specs = tiny.specs;
  checkpoint.norms = tiny.norms;
  checkpoint.embedding = 0.3 * at::randn({kTinyVocab, 64});
  for (const model::LinearSpec& spec : tiny.specs) {
    checkpoint.linears.push_back(0.15 * at::randn({spec.out, spec.in}));
  }
  return checkpoint;
}

std::vector<PackedSequence> Text() {
  return Pack(MakeTinyExamples(20, 30, 2), ShuffledOrder(20, 1), 64);
}

SensitivityOptions AllGrids() {
  SensitivityOptions options;
  options.linear_grids = {&quant::kInt2G64, &quant::kInt4G32, &quant::kInt8G32};
  options.embedding_grids = {&quant::kInt4G32, &quant::kInt8G32};
  return options;
}

TEST(SensitivityTest, CoarserGridsCostMoreAndGroupsMustFit) {
  const FloatCheckpoint checkpoint = MakeFloatCheckpoint();
  const auto tensors =
      MeasureSensitivity(checkpoint, AllGrids(), {}, Text(), GoOn);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 15);
  EXPECT_EQ((*tensors)[8].name, "blk.1.attn_k.weight");
  EXPECT_EQ(tensors->back().name, "token_embd.weight");
  for (const TensorCosts& tensor : *tensors) {
    for (size_t i = 1; i < tensor.grids.size(); ++i) {
      EXPECT_LT(tensor.grids[i].kl, 0.1 * tensor.grids[i - 1].kl)
          << tensor.name;
      EXPECT_GT(tensor.grids[i].bytes, tensor.grids[i - 1].bytes);
    }
  }
  EXPECT_EQ((*tensors)[0].grids.size(), 3);
  // Down has 96 inputs, which groups of 64 do not divide.
  EXPECT_EQ((*tensors)[6].grids.size(), 2);
  EXPECT_EQ((*tensors)[0].grids[1].bytes, 128 * 64 / 32 * 18);
}

// The KL of one tensor is what a whole run with only that tensor changed
// gives. The tiny vocabulary is cut to the teacher's 32 most likely of 96
// tokens at each position, so nearly all of it takes part.
TEST(SensitivityTest, EqualsAFullRunWithOneMatrixRounded) {
  const FloatCheckpoint checkpoint = MakeFloatCheckpoint();
  const std::vector<PackedSequence> text = Text();
  const auto tensors =
      MeasureSensitivity(checkpoint, AllGrids(), {}, text, GoOn);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  const ModelGrids grids = *GridsOf(
      *model::QuantPlan::Preset("int4", checkpoint.config), checkpoint.config);
  const auto quantized = Quantize(checkpoint, grids, PtqMethod::kRtn, {}, GoOn);
  const FloatCheckpoint values = Dequantize(checkpoint, *quantized);
  const GemmaModel teacher(MakeSharedWeights(checkpoint, 64),
                           checkpoint.linears, at::kFloat);
  GemmaModel student(MakeSharedWeights(checkpoint, 64), checkpoint.linears,
                     at::kFloat);
  for (const size_t linear : {size_t{2}, size_t{11}}) {
    student.SetLinear(static_cast<int64_t>(linear), values.linears[linear]);
    const double kl = CompareOnText(teacher, student, text, GoOn)->kl;
    student.SetLinear(static_cast<int64_t>(linear), checkpoint.linears[linear]);
    const std::vector<GridCost>& costs = (*tensors)[linear].grids;
    EXPECT_NEAR(costs[1].kl, kl, 1e-3 * kl);
  }
}

TEST(SensitivityTest, FeedbackLowersTheKl) {
  const FloatCheckpoint checkpoint = MakeFloatCheckpoint();
  const std::vector<PackedSequence> text = Text();
  SensitivityOptions options = AllGrids();
  const auto nearest = MeasureSensitivity(checkpoint, options, {}, text, GoOn);
  options.feedback = true;
  const auto feedback =
      MeasureSensitivity(checkpoint, options, text, text, GoOn);
  ASSERT_TRUE(feedback.ok()) << feedback.status();
  double before = 0, after = 0;
  for (size_t i = 0; i < nearest->size(); ++i) {
    before += (*nearest)[i].grids[0].kl;
    after += (*feedback)[i].grids[0].kl;
  }
  EXPECT_LT(after, before);
  EXPECT_EQ(
      common::ErrorReason(
          MeasureSensitivity(checkpoint, options, {}, text, GoOn).status()),
      "EMPTY_TEXT");
}

TEST(ChoosePlanTest, TakesTextPresetsAndBudgets) {
  const FloatCheckpoint checkpoint = MakeFloatCheckpoint();
  const std::vector<PackedSequence> text = Text();
  PlanChoiceOptions options;
  const auto preset = ChoosePlan("int4", checkpoint, {}, options, GoOn);
  ASSERT_TRUE(preset.ok()) << preset.status();
  EXPECT_TRUE(preset->costs.empty());
  EXPECT_EQ(common::ErrorReason(
                ChoosePlan("default: int2_g64\n", checkpoint, {}, options, GoOn)
                    .status()),
            "INVALID_QUANT_PLAN");
  const int64_t budget = model::PlanBytes(preset->plan, checkpoint.config);
  const std::string spec = absl::StrCat("auto:", budget);
  const auto chosen = ChoosePlan(spec, checkpoint, text, options, GoOn);
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  EXPECT_EQ(chosen->costs.size(), 15);
  EXPECT_LE(model::PlanBytes(chosen->plan, checkpoint.config), budget);
  // The costs of one choice serve the next, without a measurement.
  options.costs = chosen->costs;
  EXPECT_EQ(ChoosePlan(spec, checkpoint, {}, options, GoOn)->plan.ToText(),
            chosen->plan.ToText());
  EXPECT_EQ(common::ErrorReason(
                ChoosePlan("auto:1", checkpoint, {}, options, GoOn).status()),
            "BUDGET_TOO_SMALL");
}

}  // namespace
}  // namespace onegrid::finetuner
