#include "services/inference/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/top_products.h"

namespace onegrid::inference {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<float> RandomLogits(int n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0, 4);
  std::vector<float> logits(n);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

int32_t SampleCopy(Sampler& sampler, std::vector<float> logits) {
  return sampler.Sample(absl::MakeSpan(logits));
}

// Share of each token in `draws` draws.
std::vector<double> Frequencies(Sampler& sampler,
                                const std::vector<float>& logits, int draws) {
  std::vector<double> share(logits.size(), 0);
  for (int i = 0; i < draws; ++i) share[SampleCopy(sampler, logits)] += 1;
  for (double& s : share) s /= draws;
  return share;
}

TEST(SamplerTest, RefusesValuesOutOfRangeByName) {
  const auto refuse = [](const SamplerOptions& options, const char* part) {
    const absl::Status status = ValidateSampler(options, 100);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << part;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  };
  EXPECT_TRUE(ValidateSampler({}, 100).ok());
  SamplerOptions options;
  options.top_k = -1;
  refuse(options, "top_k is -1");
  const struct {
    float SamplerOptions::* field;
    const char* name;
    std::vector<float> wrong;
  } cases[] = {
      {&SamplerOptions::temperature, "temperature", {-1, 10.5}},
      {&SamplerOptions::top_p, "top_p", {0, 1.5}},
      {&SamplerOptions::min_p, "min_p", {-0.1f, 1.5}},
      {&SamplerOptions::repetition_penalty, "repetition_penalty", {0, 11}},
      {&SamplerOptions::presence_penalty, "presence_penalty", {-2.1f, 2.1f}},
      {&SamplerOptions::frequency_penalty, "frequency_penalty", {-2.1f, 2.1f}},
  };
  const float infinity = std::numeric_limits<float>::infinity();
  for (const auto& c : cases) {
    std::vector<float> wrong = c.wrong;
    wrong.insert(wrong.end(), {std::nanf(""), infinity, -infinity});
    for (const float value : wrong) {
      options = {};
      options.*c.field = value;
      refuse(options, c.name);
    }
  }
}

TEST(SamplerTest, RefusesABiasThatIsOutOfRangeByName) {
  const auto message = [](std::vector<std::pair<int32_t, float>> bias) {
    SamplerOptions options;
    options.logit_bias = std::move(bias);
    return std::string(ValidateSampler(options, 100).message());
  };
  EXPECT_EQ(message({{0, 100}, {99, -100}}), "");
  EXPECT_EQ(message({{100, 1}}),
            "sampling.logit_bias has token id 100, expected 0..99");
  EXPECT_THAT(message({{-1, 1}}), HasSubstr("token id -1"));
  EXPECT_EQ(message({{5, 100.5}}),
            "sampling.logit_bias of 5 is 100.5, expected -100..100");
  EXPECT_THAT(message({{5, std::nanf("")}}), HasSubstr("is nan"));
  EXPECT_EQ(message(std::vector<std::pair<int32_t, float>>(1025)),
            "sampling.logit_bias has 1025 entries, expected at most 1024");
}

TEST(SamplerTest, ArgMaxAndTopNAgreeWithASort) {
  for (int n : {1, 2, 3, 15, 16, 17, 4095, 4097, 20000}) {
    std::vector<float> logits = RandomLogits(n, n);
    if (n > 8) logits[7] = logits[3] = logits[8];  // ties
    // Of the largest, too, blocks apart.
    for (int i = 5; i < n; i += 611) logits[i] = 100;
    std::vector<int32_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
    });
    EXPECT_EQ(ArgMax(logits), order[0]) << n;
    for (int k : {1, 2, 20, 33, 64, 300, n / 2, n}) {
      if (k == 0 || k > n) continue;
      EXPECT_EQ(TopN(logits, k),
                std::vector<int32_t>(order.begin(), order.begin() + k));
    }
  }
}

TEST(SamplerTest, TopNOfAMaskedRowBeginsWithWhatIsLeft) {
  const float none = -std::numeric_limits<float>::infinity();
  std::vector<float> logits(5000, none);
  for (int i : {4001, 70, 71, 4999}) logits[i] = static_cast<float>(i);
  EXPECT_THAT(TopN(logits, 2), ElementsAre(4999, 4001));
  EXPECT_THAT(TopN(logits, 4), ElementsAre(4999, 4001, 71, 70));
  EXPECT_THAT(TopN(logits, 6), ElementsAre(4999, 4001, 71, 70, 0, 1));
}

TEST(SamplerTest, TopNSeesFarBelowTheLargest) {
  EXPECT_THAT(TopN({0.f, 1000.f, -1000.f}, 3), ElementsAre(1, 0, 2));
}

TEST(SamplerTest, LogSumExpIsStable) {
  EXPECT_NEAR(LogSumExp({1000.f, 1000.f}), 1000 + std::log(2.0), 1e-9);
}

TEST(SamplerTest, GreedyTakesTheFirstOfEquals) {
  Sampler sampler({});
  EXPECT_EQ(SampleCopy(sampler, {1, 3, 3, 2}), 1);
}

TEST(SamplerTest, FrequenciesFollowTheSoftmaxAtTheTemperature) {
  const std::vector<float> logits = {0.f, 1.f, 2.f, -1.f};
  SamplerOptions options;
  options.temperature = 2;
  Sampler sampler(options);
  const std::vector<double> share = Frequencies(sampler, logits, 100000);
  double sum = 0;
  for (float logit : logits) sum += std::exp(logit / 2);
  for (size_t i = 0; i < logits.size(); ++i) {
    // 100,000 draws: standard deviation at most 0.0016.
    EXPECT_NEAR(share[i], std::exp(logits[i] / 2) / sum, 0.008) << i;
  }
}

TEST(SamplerTest, TopKTopPAndMinPKeepExactlyTheirSets) {
  // Probabilities 0.5, 0.25, 0.125, 0.0625, 0.0625.
  std::vector<float> logits;
  for (double p : {0.5, 0.25, 0.125, 0.0625, 0.0625}) {
    logits.push_back(static_cast<float>(std::log(p)));
  }
  SamplerOptions options;
  options.temperature = 1;
  options.top_k = 2;
  Sampler top_k(options);
  std::vector<double> share = Frequencies(top_k, logits, 20000);
  EXPECT_NEAR(share[0], 2.0 / 3, 0.02);
  EXPECT_EQ(share[2] + share[3] + share[4], 0);

  options = {};
  options.temperature = 1;
  options.top_p = 0.7f;
  Sampler top_p(options);
  share = Frequencies(top_p, logits, 20000);
  EXPECT_NEAR(share[1], 1.0 / 3, 0.02);
  EXPECT_EQ(share[2] + share[3] + share[4], 0);

  options = {};
  options.temperature = 1;
  options.min_p = 0.2f;
  Sampler min_p(options);
  share = Frequencies(min_p, logits, 20000);
  EXPECT_NEAR(share[2], 0.125 / 0.875, 0.02);
  EXPECT_EQ(share[3] + share[4], 0);
}

TEST(SamplerTest, TheLargestLogitsAreEnoughWhereItSaysSo) {
  const struct {
    float temperature;
    int top_k;
    float top_p, min_p;
    int needed;
  } cases[] = {{0, 0, 1, 0, 1},          {0, 7, 1, 0, 1},
               {1, 1, 1, 0, 1},          {1, 40, 1, 0, 40},
               {0.8f, 40, 0.9f, 0, 40},  {3, 200, 1, 0.2f, 200},
               {1, 64, 0.5f, 0.05f, 64}, {1, 0, 0.9f, 0, 0},
               {1, 0, 1, 0.1f, 0},       {1, 0, 1, 0, 0}};
  for (const auto& c : cases) {
    SamplerOptions options;
    options.temperature = c.temperature;
    options.top_k = c.top_k;
    options.top_p = c.top_p;
    options.min_p = c.min_p;
    options.seed = 11;
    Sampler all(options), top(options);
    ASSERT_EQ(top.top_logits(), c.needed);
    if (c.needed == 0) continue;
    for (uint64_t row = 0; row < 100; ++row) {
      std::vector<float> logits = RandomLogits(1000, row);
      // Some of equal value.
      for (float& logit : logits) logit = std::round(logit * 8) / 8;
      std::vector<cpu::TopProduct> best;
      for (const int32_t token : TopN(logits, c.needed)) {
        best.push_back({token, logits[token]});
      }
      EXPECT_EQ(top.SampleTop(best), SampleCopy(all, logits))
          << c.temperature << " " << c.top_k << " row " << row;
    }
  }
}

TEST(SamplerTest, WhatChangesLogitsNeedsThemAll) {
  SamplerOptions options;
  options.top_k = 5;
  options.temperature = 1;
  ASSERT_EQ(Sampler(options).top_logits(), 5);
  for (float SamplerOptions::* field :
       {&SamplerOptions::repetition_penalty, &SamplerOptions::presence_penalty,
        &SamplerOptions::frequency_penalty}) {
    SamplerOptions changed = options;
    changed.*field = 1.5f;
    EXPECT_EQ(Sampler(changed).top_logits(), 0);
  }
  options.logit_bias = {{3, 1.0f}};
  EXPECT_EQ(Sampler(options).top_logits(), 0);
}

TEST(SamplerTest, TopPOfANearlyFlatRowReachesBeyondTheFirstCandidates) {
  const std::vector<float> logits(20000, 0.f);
  SamplerOptions options;
  options.temperature = 1;
  options.top_p = 0.99f;
  Sampler sampler(options);
  int32_t largest = 0;
  for (int i = 0; i < 200; ++i) {
    largest = std::max(largest, SampleCopy(sampler, logits));
  }
  EXPECT_GT(largest, 17000);
  EXPECT_LT(largest, 19801);
}

TEST(SamplerTest, RepetitionPenaltyPushesSeenTokensDown) {
  SamplerOptions options;
  options.repetition_penalty = 2;
  Sampler sampler(options);
  EXPECT_EQ(SampleCopy(sampler, {3, 2, -1}), 0);
  sampler.ObserveOutput(0);
  sampler.ObserveOutput(0);
  EXPECT_EQ(SampleCopy(sampler, {3, 2, -1}), 1);
  sampler.ObserveOutput(1);
  EXPECT_EQ(SampleCopy(sampler, {3, 2, 1.6f}), 2);
  sampler.ObserveOutput(2);
  EXPECT_EQ(SampleCopy(sampler, {-3, -2, -5}), 1);
}

TEST(SamplerTest, PresenceCountsOnceAndFrequencyEachTimeInTheOutput) {
  SamplerOptions options;
  options.presence_penalty = 1;
  Sampler presence(options);
  presence.ObservePrompt(0);
  EXPECT_EQ(SampleCopy(presence, {3, 2.5f, 0}), 0);
  presence.ObserveOutput(0);
  EXPECT_EQ(SampleCopy(presence, {3, 2.5f, 0}), 1);
  presence.ObserveOutput(0);
  EXPECT_EQ(SampleCopy(presence, {3, 1.5f, 0}), 0);

  options = {};
  options.frequency_penalty = 1;
  Sampler frequency(options);
  frequency.ObservePrompt(0);
  frequency.ObserveOutput(0);
  EXPECT_EQ(SampleCopy(frequency, {3, 1.5f, 0}), 0);
  frequency.ObserveOutput(0);
  EXPECT_EQ(SampleCopy(frequency, {3, 1.5f, 0}), 1);
}

TEST(SamplerTest, ABiasForcesForbidsAndLiftsNoMask) {
  SamplerOptions options;
  options.logit_bias = {{2, 100.0f}};
  Sampler forced(options);
  EXPECT_TRUE(forced.changes_logits());
  EXPECT_EQ(SampleCopy(forced, {3, 2, -50}), 2);
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(SampleCopy(forced, {3, 2, -infinity}), 0);
  options.logit_bias = {{0, -100.0f}};
  Sampler forbidden(options);
  EXPECT_EQ(SampleCopy(forbidden, {3, 2, -50}), 1);
  EXPECT_FALSE(Sampler({}).changes_logits());
}

TEST(SamplerTest, SameSeedSameTokensOtherSeedOtherTokens) {
  const std::vector<float> logits = RandomLogits(5000, 1);
  for (float top_p : {1.0f, 0.9f}) {
    SamplerOptions options;
    options.temperature = 3;
    options.top_p = top_p;
    options.seed = 17;
    Sampler a(options), b(options);
    options.seed = 18;
    Sampler c(options);
    int differ = 0;
    for (int i = 0; i < 50; ++i) {
      const int32_t token = SampleCopy(a, logits);
      EXPECT_EQ(token, SampleCopy(b, logits));
      differ += token != SampleCopy(c, logits);
    }
    EXPECT_GT(differ, 10);
  }
}

TEST(SamplerTest, TokensOfNoProbabilityAreNeverChosen) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  for (const float top_p : {1.0f, 0.99999f}) {
    SamplerOptions options;
    options.temperature = 1;
    options.top_k = top_p < 1 ? 50 : 0;
    options.top_p = top_p;
    options.repetition_penalty = 1.5f;
    Sampler sampler(options);
    for (const int32_t token : {3, 77}) sampler.ObservePrompt(token);
    for (int i = 0; i < 200; ++i) {
      std::vector<float> logits(100, kNever);
      logits[40] = 1;
      logits[77] = -2;
      const int32_t token = sampler.Sample(absl::MakeSpan(logits));
      EXPECT_TRUE(token == 40 || token == 77) << token;
    }
  }
}

}  // namespace
}  // namespace onegrid::inference
