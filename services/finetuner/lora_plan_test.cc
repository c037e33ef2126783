#include "services/finetuner/lora_plan.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "services/common/error_info.h"

namespace onegrid::finetuner {
namespace {

std::vector<model::LinearSpec> Linears() {
  model::GemmaConfig config;
  config.layers =
      model::UniformLayers(2, 6, {.head_dim = 2, .kv_heads = 2, .ff = 12});
  config.hidden = 8;
  config.heads = 4;
  return model::GemmaLinears(config);
}

int64_t Targets(const std::vector<LoraShape>& shapes) {
  int64_t count = 0;
  for (const LoraShape& shape : shapes) count += shape.rank > 0;
  return count;
}

TEST(LoraPlanTest, TargetsAreKindsOrGlobs) {
  LoraOptions options;
  EXPECT_EQ(Targets(*PlanLora(Linears(), options)), 14);
  options.targets = {"q_proj", "layers.1.mlp.*"};
  const auto shapes = *PlanLora(Linears(), options);
  EXPECT_EQ(Targets(shapes), 2 + 3);
  EXPECT_EQ(shapes[0].scale, 2);
  options.targets = {"layers.7.*"};
  EXPECT_EQ(
      common::ErrorMetadata(PlanLora(Linears(), options).status()).at("field"),
      "lora.target_modules");
}

TEST(LoraPlanTest, TheFirstPatternThatFitsCounts) {
  LoraOptions options;
  options.rank = 4;
  options.alpha = 8;
  options.targets = {"q_proj", "v_proj"};
  options.patterns = {{"layers.0.*", 2, 0}, {"q_proj", 16, 64}};
  const auto shapes = *PlanLora(Linears(), options);
  EXPECT_EQ(shapes[0].rank, 2);  // Layer 0, q_proj.
  EXPECT_EQ(shapes[0].alpha, 8);
  EXPECT_EQ(shapes[0].scale, 4);
  EXPECT_EQ(shapes[7].rank, 16);
  EXPECT_EQ(shapes[7].scale, 4);
  EXPECT_EQ(shapes[9].rank, 4);  // Layer 1, v_proj.
  EXPECT_EQ(shapes[1].rank, 0);  // Not a target.
  options.patterns = {{"q_proj", 300, 0}};
  EXPECT_EQ(
      common::ErrorMetadata(PlanLora(Linears(), options).status()).at("field"),
      "lora.rank");
  options.patterns = {{"q_proj", 3, -1}};
  EXPECT_EQ(
      common::ErrorMetadata(PlanLora(Linears(), options).status()).at("field"),
      "lora.alpha");
}

TEST(LoraPlanTest, RankStabilizedScalesDivideByTheRoot) {
  LoraOptions options;
  options.rank = 4;
  options.alpha = 8;
  options.use_rslora = true;
  options.patterns = {{"o_proj", 9, 0}};
  const auto shapes = *PlanLora(Linears(), options);
  EXPECT_EQ(shapes[0].scale, 4);
  EXPECT_EQ(shapes[3].scale, 8.0 / 3.0);
}

TEST(LoraPlanTest, TheConfigSaysTheSameInPeftsWords) {
  LoraOptions options;
  options.rank = 4;
  options.alpha = 8;
  options.use_rslora = true;
  options.targets = {"q_proj", "layers.1.mlp.up_proj"};
  options.patterns = {{"layers.1.self_attn.q_proj", 2, 6}};
  const auto linears = Linears();
  const auto config = nlohmann::json::parse(
      PeftConfigJson(linears, *PlanLora(linears, options), options, "base"));
  EXPECT_EQ(config["target_modules"],
            nlohmann::json({"model.layers.1.mlp.up_proj", "q_proj"}));
  EXPECT_EQ(config["rank_pattern"],
            nlohmann::json({{"model.layers.1.self_attn.q_proj", 2}}));
  EXPECT_EQ(config["alpha_pattern"],
            nlohmann::json({{"model.layers.1.self_attn.q_proj", 6.0}}));
  EXPECT_EQ(config["use_rslora"], true);
  EXPECT_EQ(config["r"], 4);
  EXPECT_EQ(config["base_model_name_or_path"], "base");
}

TEST(LoraPlanTest, EveryOptionIsInTheDescription) {
  const LoraOptions plain;
  LoraOptions other;
  other.use_rslora = true;
  EXPECT_NE(DescribeLora(plain), DescribeLora(other));
  other = plain;
  other.lora_plus_ratio = 16;
  EXPECT_NE(DescribeLora(plain), DescribeLora(other));
  other = plain;
  other.patterns = {{"q_proj", 8, 0}};
  EXPECT_NE(DescribeLora(plain), DescribeLora(other));
}

}  // namespace
}  // namespace onegrid::finetuner
