// Goal: the sampler draws from the distribution that its header describes.
// Method: the nine steps written out plainly, in double and with a full sort,
// on random options; its probabilities against how often each token is drawn.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "services/inference/sampler.h"

namespace onegrid::inference {
namespace {

constexpr int kVocab = 40;
constexpr int kDraws = 4000;

struct Case {
  SamplerOptions options;
  std::vector<int32_t> prompt;
  std::vector<int32_t> output;
  std::vector<float> logits;
};

int Count(const std::vector<int32_t>& tokens, int32_t token) {
  return static_cast<int>(std::count(tokens.begin(), tokens.end(), token));
}

// Steps 1 to 4.
std::vector<double> Changed(const Case& c) {
  const SamplerOptions& o = c.options;
  std::vector<double> logits(c.logits.begin(), c.logits.end());
  for (const auto& [token, bias] : o.logit_bias) logits[token] += bias;
  for (int32_t token = 0; token < kVocab; ++token) {
    double& logit = logits[token];
    const int in_output = Count(c.output, token);
    if (in_output + Count(c.prompt, token) > 0) {
      logit = logit > 0 ? logit / o.repetition_penalty
                        : logit * o.repetition_penalty;
    }
    logit -= static_cast<double>(o.frequency_penalty) * in_output;
    if (in_output > 0) logit -= o.presence_penalty;
  }
  return logits;
}

void Normalize(std::vector<double>* p) {
  const double sum = std::accumulate(p->begin(), p->end(), 0.0);
  for (double& value : *p) value /= sum;
}

// Steps 5 to 8: the probability of each token.
std::vector<double> Probabilities(const Case& c) {
  const std::vector<double> logits = Changed(c);
  std::vector<double> p(kVocab, 0);
  std::vector<int32_t> order(kVocab);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  if (c.options.temperature == 0) {
    p[order[0]] = 1;
    return p;
  }
  for (int i = 0; i < kVocab; ++i) {
    p[i] = std::exp((logits[i] - logits[order[0]]) / c.options.temperature);
  }
  for (double& value : p) value = value >= c.options.min_p ? value : 0;
  const int k = c.options.top_k == 0 ? kVocab : c.options.top_k;
  for (int i = k; i < kVocab; ++i) p[order[i]] = 0;
  Normalize(&p);
  double mass = 0;
  for (const int32_t token : order) {
    if (mass >= c.options.top_p) p[token] = 0;
    mass += p[token];
  }
  Normalize(&p);
  return p;
}

// Each option is off in a part of the cases.
Case RandomCase(std::mt19937_64& random) {
  const auto uniform = [&](double min, double max) {
    return static_cast<float>(
        std::uniform_real_distribution<double>(min, max)(random));
  };
  const auto token = [&] { return static_cast<int32_t>(random() % kVocab); };
  const auto often = [&] { return random() % 3 != 0; };
  Case c;
  SamplerOptions& o = c.options;
  o.seed = random();
  if (random() % 5 != 0) o.temperature = uniform(0.3, 2);
  if (often()) o.top_k = 1 + static_cast<int>(random() % 30);
  if (often()) o.top_p = uniform(0.2, 1);
  if (often()) o.min_p = uniform(0, 0.3);
  if (often()) o.repetition_penalty = uniform(0.5, 2);
  if (often()) o.presence_penalty = uniform(-2, 2);
  if (often()) o.frequency_penalty = uniform(-2, 2);
  if (often()) o.logit_bias = {{3, uniform(-5, 5)}, {7, uniform(-100, 5)}};
  for (int i = 0; i < 12; ++i) c.prompt.push_back(token());
  for (int i = 0; i < 12; ++i) c.output.push_back(token() / 2);
  for (int i = 0; i < kVocab; ++i) c.logits.push_back(uniform(-4, 4));
  // Tokens that may not be drawn, such as those of a mask.
  c.logits[token()] = c.logits[token()] =
      -std::numeric_limits<float>::infinity();
  return c;
}

TEST(SamplerReferenceTest, DrawsFollowTheStepsWrittenOut) {
  std::mt19937_64 random(1);
  for (int number = 0; number < 100; ++number) {
    const Case c = RandomCase(random);
    const std::vector<double> expected = Probabilities(c);
    Sampler sampler(c.options);
    for (const int32_t token : c.prompt) sampler.ObservePrompt(token);
    for (const int32_t token : c.output) sampler.ObserveOutput(token);
    std::vector<int> drawn(kVocab, 0);
    for (int i = 0; i < kDraws; ++i) {
      std::vector<float> logits = c.logits;
      ++drawn[sampler.Sample(absl::MakeSpan(logits))];
    }
    for (int i = 0; i < kVocab; ++i) {
      const double p = expected[i];
      if (p == 0) {
        EXPECT_EQ(drawn[i], 0) << number << " token " << i;
      }
      // 4,000 values are looked at: five standard deviations.
      EXPECT_NEAR(drawn[i] / static_cast<double>(kDraws), p,
                  5 * std::sqrt(p * (1 - p) / kDraws) + 1e-3)
          << number << " token " << i;
    }
  }
}

TEST(SamplerReferenceTest, WhatASwappedStepWouldDrawIsSeen) {
  // min-p before top-p: 0.02 is below 0.1 of 0.5 and leaves the mass of which
  // top-p takes 0.83, so that the third token is not needed.
  Case c;
  c.options.temperature = 1;
  c.options.min_p = 0.1f;
  c.options.top_p = 0.83f;
  c.logits.assign(kVocab, static_cast<float>(std::log(0.02 / 37)));
  c.logits[0] = static_cast<float>(std::log(0.5));
  c.logits[1] = static_cast<float>(std::log(0.32));
  c.logits[2] = static_cast<float>(std::log(0.16));
  const std::vector<double> expected = Probabilities(c);
  EXPECT_EQ(expected[2], 0);
  Sampler sampler(c.options);
  int third = 0;
  for (int i = 0; i < kDraws; ++i) {
    std::vector<float> logits = c.logits;
    third += sampler.Sample(absl::MakeSpan(logits)) == 2;
  }
  EXPECT_EQ(third, 0);
}

}  // namespace
}  // namespace onegrid::inference
