#include "kernels/reference/expert_choice.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace onegrid::reference {
namespace {

TEST(ExpertChoiceTest, SharesAreTheSoftmaxOverTheChosenTimesTheirScales) {
  const std::vector<float> logits = {0.5f, 3.0f, -1.0f, 2.0f};
  const std::vector<float> scales = {1, 2, 3, 4};
  const auto choices = ChooseExperts(logits, 2, scales);
  ASSERT_EQ(choices.size(), 2u);
  EXPECT_EQ(choices[0].expert, 1);
  EXPECT_EQ(choices[1].expert, 3);
  const double a = std::exp(3.0), b = std::exp(2.0);
  EXPECT_NEAR(choices[0].weight, a / (a + b) * 2, 1e-6);
  EXPECT_NEAR(choices[1].weight, b / (a + b) * 4, 1e-6);
}

TEST(ExpertChoiceTest, OfEqualLogitsTheLowerNumberGoesFirst) {
  const auto choices = ChooseExperts({1.0f, 1.0f, 1.0f}, 2, {1.0f, 1.0f, 1.0f});
  ASSERT_EQ(choices.size(), 2u);
  EXPECT_EQ(choices[0].expert, 0);
  EXPECT_EQ(choices[1].expert, 1);
  EXPECT_FLOAT_EQ(choices[0].weight, 0.5f);
}

TEST(ExpertChoiceTest, FarApartLogitsStayFinite) {
  const auto choices = ChooseExperts({1e30f, -1e30f}, 2, {1.0f, 1.0f});
  EXPECT_FLOAT_EQ(choices[0].weight, 1);
  EXPECT_LT(choices[1].weight, 1e-30f);
  EXPECT_GE(choices[1].weight, 0);
}

TEST(ExpertChoiceTest, RouterTakesTheScaleOverTheRootOfTheWidth) {
  const std::vector<float> norm = RouterNorm({2, 4, 6, 8});
  EXPECT_EQ(norm, (std::vector<float>{1, 2, 3, 4}));
  const std::vector<float> logits = RouterLogits({1, 2}, {1, 0, 0, 1, 3, -1});
  EXPECT_EQ(logits, (std::vector<float>{1, 2, 1}));
}

}  // namespace
}  // namespace onegrid::reference
