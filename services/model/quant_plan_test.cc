#include "services/model/quant_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "services/common/error_info.h"
#include "services/model/tensor_names.h"

namespace onegrid::model {
namespace {

using ::testing::HasSubstr;

// Gemma 3 270M.
GemmaConfig Config270M() {
  GemmaConfig config;
  config.vocab_size = 262144;
  config.hidden = 640;
  config.layers =
      UniformLayers(18, 6, {.head_dim = 256, .kv_heads = 1, .ff = 2048});
  config.heads = 4;
  return config;
}

QuantPlan Parsed(const std::string& text) {
  auto plan = QuantPlan::Parse(text);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return plan.ok() ? *std::move(plan) : QuantPlan(quant::kInt4G32, {});
}

std::string GridName(const QuantPlan& plan, const std::string& tensor) {
  const auto grid = plan.GridFor(tensor);
  EXPECT_TRUE(grid.ok()) << grid.status();
  return grid.ok() ? (*grid)->name : "";
}

constexpr char kMixed[] = R"(
default: int4_g32
rules:
  - tensors: blk.3.ffn_down.weight
    grid: int8_g32
  - tensors: "blk.{2-17}.ffn_*.weight"
    grid: int2_g64
  - {tensors: "*", grid: int8_g32}
)";

TEST(QuantPlanTest, FirstRuleThatMatchesWins) {
  const QuantPlan plan = Parsed(kMixed);
  EXPECT_EQ(GridName(plan, "blk.3.ffn_down.weight"), "int8_g32");
  EXPECT_EQ(GridName(plan, "blk.3.ffn_up.weight"), "int2_g64");
  EXPECT_EQ(GridName(plan, "blk.17.ffn_down.weight"), "int2_g64");
  EXPECT_EQ(GridName(plan, "blk.1.ffn_up.weight"), "int8_g32");
  EXPECT_EQ(GridName(plan, "blk.3.attn_q.weight"), "int8_g32");
}

TEST(QuantPlanTest, TensorWithoutARuleHasTheDefault) {
  const QuantPlan plan = Parsed("default: int2_g64");
  EXPECT_EQ(GridName(plan, "blk.0.attn_v.weight"), "int2_g64");
  EXPECT_EQ(
      GridName(Parsed("default: int2_g64\nrules:"), "blk.0.attn_v.weight"),
      "int2_g64");
}

TEST(QuantPlanTest, EmbeddingIsMeantOnlyByItsFullName) {
  EXPECT_EQ(GridName(Parsed("default: int4_g32"), kGgufEmbedding), "int8_g32");
  EXPECT_EQ(GridName(Parsed("default: int4_g32\nrules:\n"
                            "  - {tensors: \"*\", grid: int2_g64}\n"),
                     kGgufEmbedding),
            "int8_g32");
  EXPECT_EQ(GridName(Parsed("default: int4_g32\nrules:\n"
                            "  - {tensors: token_embd.weight, grid: int2_g64}"),
                     kGgufEmbedding),
            "int2_g64");
}

TEST(QuantPlanTest, OnlyMatricesHaveAGrid) {
  const QuantPlan plan = Parsed("default: int4_g32");
  for (const char* name : {"", "blk.0.attn_norm.weight", "output_norm.weight",
                           "blk.x.attn_q.weight", "blk..attn_q.weight",
                           "blk.0.attn_q", "xblk.0.attn_q.weight"}) {
    const auto grid = plan.GridFor(name);
    ASSERT_FALSE(grid.ok()) << name;
    EXPECT_EQ(common::ErrorReason(grid.status()), "INVALID_QUANT_PLAN");
  }
}

void ExpectSamePlan(const QuantPlan& plan) {
  const QuantPlan again = Parsed(plan.ToText());
  EXPECT_EQ(again.default_grid().name, plan.default_grid().name);
  ASSERT_EQ(again.rules().size(), plan.rules().size());
  for (size_t i = 0; i < plan.rules().size(); ++i) {
    EXPECT_EQ(again.rules()[i].pattern.text(), plan.rules()[i].pattern.text());
    EXPECT_EQ(again.rules()[i].grid, plan.rules()[i].grid);
  }
}

TEST(QuantPlanTest, TextParsesBackToTheSamePlan) {
  ExpectSamePlan(Parsed(kMixed));
  ExpectSamePlan(Parsed("default: int8_g32"));
  ExpectSamePlan(*QuantPlan::Preset("int4", Config270M()));
  ExpectSamePlan(*QuantPlan::Preset("mobile_e2b", Config270M()));
  ExpectSamePlan(QuantPlan(quant::kInt4G32,
                           {{*NamePattern::Parse("a\"b\\c: d#\n* e"),
                             &quant::kInt2G64, "two\nlines: of comment"}}));
}

TEST(QuantPlanTest, TextIsReadByPeople) {
  const QuantPlan plan = *QuantPlan::Preset("mobile_e2b", Config270M());
  EXPECT_THAT(plan.ToText(), HasSubstr("default: int4_g32\nrules:\n  # "));
  EXPECT_THAT(plan.ToText(),
              HasSubstr("  - tensors: \"blk.{8-17}.ffn_*.weight\"\n"
                        "    grid: int2_g64\n"));
}

struct BadText {
  const char* text;
  const char* message;
};

TEST(QuantPlanTest, BadTextIsRefusedByLineAndRule) {
  const BadText cases[] = {
      {"", "expected a map"},
      {"- default", "line 1: expected a map"},
      {"rules: []", "default is missing"},
      {"default: int3_g32", "line 1: no grid is named int3_g32"},
      {"default: [int4_g32]", "line 1: no grid is named"},
      {"default: int4_g32\ndefault: int2_g64", "line 2: a second default"},
      {"default: int4_g32\nrule: []", "line 2: unknown key rule"},
      {"default: int4_g32\nrules: x", "line 2: rules: expected a list"},
      {"default: int4_g32\nrules:\n  - x", "line 3, rule 1: expected a map"},
      {"default: int4_g32\nrules:\n  - {tensors: a, grid: int4_g32}\n"
       "  - tensors: b\n",
       "line 4, rule 2: grid is missing"},
      {"default: int4_g32\nrules:\n  - {grid: int4_g32}",
       "line 3, rule 1: tensors is missing"},
      {"default: int4_g32\nrules:\n  - {tensors: \"{3\", grid: int4_g32}",
       "line 3, rule 1: the pattern \"{3\""},
      {"default: int4_g32\nrules:\n  - tensors: *\n    grid: int4_g32",
       "line 3"},  // a star without quotes is YAML's own
      {"default: int4_g32\nrules: [", "line 2"},
      {"default: *nothing", "line 1"},
  };
  for (const BadText& bad : cases) {
    const auto plan = QuantPlan::Parse(bad.text);
    ASSERT_FALSE(plan.ok()) << bad.text;
    EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(common::ErrorReason(plan.status()), "INVALID_QUANT_PLAN");
    EXPECT_THAT(std::string(plan.status().message()), HasSubstr(bad.message))
        << bad.text;
  }
}

TEST(QuantPlanTest, DeepTextIsAnErrorNotACrash) {
  EXPECT_FALSE(QuantPlan::Parse(std::string(100000, '[')).ok());
  EXPECT_FALSE(QuantPlan::Parse(std::string(100000, '{')).ok());
}

TEST(QuantPlanTest, MobilePresetFollowsTheLayersOfE2B) {
  GemmaConfig config = Config270M();
  config.layers.resize(35);
  QuantPlan plan = *QuantPlan::Preset("mobile_e2b", config);
  EXPECT_EQ(GridName(plan, "blk.14.ffn_up.weight"), "int4_g32");
  EXPECT_EQ(GridName(plan, "blk.15.ffn_gate.weight"), "int2_g64");
  EXPECT_EQ(GridName(plan, "blk.34.ffn_down.weight"), "int2_g64");
  EXPECT_EQ(GridName(plan, "blk.34.attn_q.weight"), "int4_g32");
  EXPECT_EQ(GridName(plan, kGgufEmbedding), "int4_g32");
  for (const int64_t layers : {1, 2, 3, 18, 26}) {
    config.layers.resize(layers);
    for (const char* name : {"int4", "mobile_e2b"}) {
      EXPECT_TRUE(CheckPlan(*QuantPlan::Preset(name, config), config).ok());
    }
  }
}

TEST(QuantPlanTest, UnknownPresetIsRefused) {
  const auto plan = QuantPlan::Preset("int3", Config270M());
  EXPECT_THAT(std::string(plan.status().message()),
              HasSubstr("there are int4 and mobile_e2b"));
}

TEST(CheckPlanTest, InputsMustBeWholeGroups) {
  GemmaConfig config = Config270M();
  for (GemmaLayer& layer : config.layers) layer.ff = 2080;  // 32 * 65
  EXPECT_TRUE(CheckPlan(Parsed("default: int4_g32"), config).ok());
  const absl::Status status = CheckPlan(Parsed("default: int2_g64"), config);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("blk.0.ffn_down.weight: int2_g64 needs inputs in a "
                        "multiple of 64, found 2080"));
}

TEST(CheckPlanTest, RuleThatFitsNothingIsRefused) {
  const absl::Status status =
      CheckPlan(Parsed("default: int4_g32\nrules:\n"
                       "  - {tensors: \"blk.*\", grid: int8_g32}\n"
                       "  - {tensors: \"blk.{18-20}.*\", grid: int2_g64}\n"),
                Config270M());
  EXPECT_THAT(std::string(status.message()), HasSubstr("rule 2: blk.{18-20}"));
}

// 100,270,080 weights in the linears, 167,772,160 in the embedding.
TEST(PlanBytesTest, CountsEveryMatrixOnce) {
  const GemmaConfig config = Config270M();
  EXPECT_EQ(PlanBytes(*QuantPlan::Preset("int4", config), config),
            100270080 / 32 * 18 + 167772160 / 32 * 34);
  const int64_t late = int64_t{10} * 3 * 640 * 2048;
  EXPECT_EQ(PlanBytes(*QuantPlan::Preset("mobile_e2b", config), config),
            (100270080 - late + 167772160) / 32 * 18 + late / 64 * 18);
}

}  // namespace
}  // namespace onegrid::model
