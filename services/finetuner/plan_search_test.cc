#include "services/finetuner/plan_search.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"

namespace onegrid::finetuner {
namespace {

int64_t BytesOf(const std::vector<TensorCosts>& tensors,
                const std::vector<int>& plan) {
  int64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    bytes += tensors[i].grids[plan[i]].bytes;
  }
  return bytes;
}

double KlOf(const std::vector<TensorCosts>& tensors,
            const std::vector<int>& plan) {
  double kl = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    kl += tensors[i].grids[plan[i]].kl;
  }
  return kl;
}

// The least summed KL of all plans that fit.
double BruteForce(const std::vector<TensorCosts>& tensors, int64_t budget) {
  double best = INFINITY;
  std::vector<int> plan(tensors.size(), 0);
  while (true) {
    if (BytesOf(tensors, plan) <= budget) {
      best = std::min(best, KlOf(tensors, plan));
    }
    size_t i = 0;
    while (i < plan.size() &&
           ++plan[i] == static_cast<int>(tensors[i].grids.size())) {
      plan[i++] = 0;
    }
    if (i == plan.size()) return best;
  }
}

// `count` tensors of up to 3 grids; sizes are multiples of `unit`.
std::vector<TensorCosts> RandomTensors(int count, int64_t unit,
                                       std::mt19937_64* random) {
  std::vector<TensorCosts> tensors;
  for (int i = 0; i < count; ++i) {
    TensorCosts tensor;
    tensor.name = absl::StrCat("t", i);
    const int64_t size = unit * static_cast<int64_t>(1 + (*random)() % 9);
    double kl = 1.0;
    for (const int64_t width : {9, 18, 34}) {
      kl *= static_cast<double>((*random)() % 1000) / 1000;
      tensor.grids.push_back({&quant::kInt4G32, size * width, kl});
    }
    tensor.grids.resize(1 + (*random)() % 3);
    tensors.push_back(tensor);
  }
  return tensors;
}

TEST(SearchPlanTest, EqualsBruteForce) {
  std::mt19937_64 random(7);
  for (int trial = 0; trial < 60; ++trial) {
    const std::vector<TensorCosts> tensors = RandomTensors(7, 64, &random);
    int64_t least = 0, most = 0;
    for (const TensorCosts& tensor : tensors) {
      least += tensor.grids.front().bytes;
      most += tensor.grids.back().bytes;
    }
    for (const int64_t budget :
         {least, (3 * least + most) / 4, (least + most) / 2, most}) {
      const auto plan = SearchPlan(tensors, budget);
      ASSERT_TRUE(plan.ok()) << plan.status();
      EXPECT_LE(BytesOf(tensors, *plan), budget);
      EXPECT_DOUBLE_EQ(KlOf(tensors, *plan), BruteForce(tensors, budget));
    }
  }
}

TEST(SearchPlanTest, SizesWithoutACommonUnitStillFit) {
  std::mt19937_64 random(3);
  std::vector<TensorCosts> tensors = RandomTensors(6, 10'000'000, &random);
  int64_t least = 0, most = 0;
  for (TensorCosts& tensor : tensors) {
    for (GridCost& grid : tensor.grids) grid.bytes += random() % 1000;
    least += tensor.grids.front().bytes;
    most += tensor.grids.back().bytes;
  }
  const int64_t budget = (least + most) / 2;
  const auto plan = SearchPlan(tensors, budget);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_LE(BytesOf(tensors, *plan), budget);
  // A unit is less than budget / 2^20 + 1 bytes.
  EXPECT_LE(KlOf(tensors, *plan),
            BruteForce(tensors, budget - 6 * (budget / (1 << 20) + 1)));
}

TEST(SearchPlanTest, EqualSumsGoToTheSmallerPlan) {
  const std::vector<TensorCosts> tensors = {
      {"a", {{&quant::kInt2G64, 10, 0.5}, {&quant::kInt4G32, 20, 0.5}}}};
  EXPECT_EQ(*SearchPlan(tensors, 20), std::vector<int>{0});
}

TEST(SearchPlanTest, BudgetsOutsideTheRangeNameIt) {
  const std::vector<TensorCosts> tensors = {
      {"a", {{&quant::kInt2G64, 10, 0.5}, {&quant::kInt4G32, 20, 0.1}}},
      {"b", {{&quant::kInt8G32, 7, 0.1}}}};
  const absl::Status small = SearchPlan(tensors, 16).status();
  EXPECT_EQ(common::ErrorReason(small), "BUDGET_TOO_SMALL");
  EXPECT_EQ(common::ErrorMetadata(small)["least_bytes"], "17");
  EXPECT_TRUE(SearchPlan(tensors, 17).ok());
  const absl::Status large = SearchPlan(tensors, 28).status();
  EXPECT_EQ(common::ErrorReason(large), "BUDGET_TOO_LARGE");
  EXPECT_EQ(common::ErrorMetadata(large)["most_bytes"], "27");
}

TEST(MakePlanTest, TheFileHoldsTheChoiceAndWhatItWasMadeBy) {
  const std::vector<TensorCosts> tensors = {
      {"blk.0.ffn_up.weight",
       {{&quant::kInt2G64, 10, 0.5}, {&quant::kInt4G32, 20, 0.1}}},
      {"token_embd.weight", {{&quant::kInt8G32, 7, 0.001}}}};
  const auto plan = MakePlan(tensors, {0, 0});
  ASSERT_TRUE(plan.ok()) << plan.status();
  const std::string text = plan->ToText();
  EXPECT_NE(text.find("KL int2_g64 0.5 int4_g32 0.1"), std::string::npos)
      << text;
  const auto read = model::QuantPlan::Parse(text);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read->GridFor("blk.0.ffn_up.weight"), &quant::kInt2G64);
  EXPECT_EQ(*read->GridFor("token_embd.weight"), &quant::kInt8G32);
}

TEST(CostsFileTest, ComesBackAsItWas) {
  std::mt19937_64 random(5);
  const std::vector<TensorCosts> tensors = RandomTensors(3, 64, &random);
  const auto read = CostsFromJson(CostsToJson(tensors));
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), 3);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ((*read)[i].name, tensors[i].name);
    ASSERT_EQ((*read)[i].grids.size(), tensors[i].grids.size());
    EXPECT_EQ((*read)[i].grids.back().grid, tensors[i].grids.back().grid);
    EXPECT_EQ((*read)[i].grids.back().bytes, tensors[i].grids.back().bytes);
    EXPECT_EQ((*read)[i].grids.back().kl, tensors[i].grids.back().kl);
  }
  for (const char* text :
       {"", "[]", "[1]", "{\"name\": 1}", R"([{"name": "a", "grids": []}])",
        R"([{"name": "a", "grids": [{"grid": "x", "bytes": 1, "kl": 0}]}])"}) {
    EXPECT_EQ(common::ErrorReason(CostsFromJson(text).status()),
              "INVALID_COSTS")
        << text;
  }
}

TEST(ParseAutoPlanTest, TakesBytesOnly) {
  EXPECT_EQ(*ParseAutoPlan("auto:123"), 123);
  EXPECT_EQ(*ParseAutoPlan("int4"), std::nullopt);
  for (const char* text : {"auto:", "auto:0", "auto:-1", "auto:1M"}) {
    EXPECT_EQ(common::ErrorReason(ParseAutoPlan(text).status()),
              "INVALID_QUANT_PLAN");
  }
}

}  // namespace
}  // namespace onegrid::finetuner
