// Goal: what callers of the service rely on where they steer the sampling.
// Method: a tiny random model, alone and among others.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/inference/generation_testing.h"

namespace onegrid::inference {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

v1::GenerateRequest Request(const std::string& text, int max_tokens) {
  v1::GenerateRequest request = TextRequest(text, max_tokens);
  request.set_logprobs(true);
  return request;
}

std::unique_ptr<ServedModel> Serve(int max_sequences, int threads,
                                   const std::string& prompt_lookup = "auto",
                                   const TinyModelOptions& tiny = {}) {
  const std::string path = TestModelPath();
  EXPECT_TRUE(WriteTinyModel(path, tiny).ok());
  ServedModelOptions options;
  options.model_path = path;
  options.threads = {threads, "--threads"};
  options.max_sequences = max_sequences;
  options.prompt_lookup = prompt_lookup;
  options.max_step_tokens = 32;
  auto model = ServedModel::Load(options);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

TEST(GenerationSamplingTest, TopLogprobsAreTheModelsOwn) {
  const auto model = Serve(4, 2);
  v1::GenerateRequest request = Request("top", 10);
  request.set_top_logprobs(20);
  // None of these changes what is reported of the place.
  v1::Sampling& sampling = *request.mutable_sampling();
  sampling.set_temperature(1.5);
  sampling.set_top_k(3);
  sampling.set_repetition_penalty(1.3f);
  sampling.set_presence_penalty(1);
  sampling.set_frequency_penalty(-1);
  (*sampling.mutable_logit_bias())[kTinyLetterA] = 3;
  const Generated generated = Generate(model->service(), request);
  ASSERT_TRUE(generated.status.ok()) << generated.status;
  ASSERT_EQ(generated.top_ids.size(), 200u);

  v1::TokenizeRequest tokenize;
  tokenize.set_text("top");
  tokenize.set_add_bos(true);
  const auto prompt = model->service().Tokenize(tokenize);
  v1::ScoreTokensRequest score;
  *score.mutable_token_ids() = prompt->token_ids();
  score.mutable_token_ids()->Add(generated.tokens.begin(),
                                 generated.tokens.end());
  score.set_first_scored(prompt->token_ids_size());
  score.set_top_n(20);
  const auto scores = model->service().ScoreTokens(score, {});
  ASSERT_TRUE(scores.ok()) << scores.status();
  EXPECT_EQ(generated.logprobs, std::vector<float>(scores->logprobs().begin(),
                                                   scores->logprobs().end()));
  EXPECT_EQ(generated.top_ids, std::vector<int32_t>(scores->top_ids().begin(),
                                                    scores->top_ids().end()));
  EXPECT_EQ(generated.top_logprobs,
            std::vector<float>(scores->top_logprobs().begin(),
                               scores->top_logprobs().end()));
}

TEST(GenerationSamplingTest, ABiasForcesAndForbids) {
  const auto model = Serve(4, 2);
  const Generated free = Generate(model->service(), Request("bias", 20));
  ASSERT_TRUE(free.status.ok()) << free.status;
  v1::GenerateRequest request = Request("bias", 20);
  auto& bias = *request.mutable_sampling()->mutable_logit_bias();
  bias[kTinyLetterA] = 100;
  EXPECT_THAT(Generate(model->service(), request).tokens, Each(kTinyLetterA));
  bias.clear();
  bias[free.tokens[0]] = -100;
  const Generated other = Generate(model->service(), request);
  EXPECT_EQ(other.tokens.size(), 20u);
  EXPECT_EQ(
      std::count(other.tokens.begin(), other.tokens.end(), free.tokens[0]), 0);
}

// Greedy, so each token is the best of its place after the penalties, which
// the log-probabilities do not have in them.
TEST(GenerationSamplingTest, PenaltiesAreAgainstTheOutputsOwnTokens) {
  constexpr double kPresence = 1.5, kFrequency = 0.5;
  const auto model = Serve(4, 2);
  v1::GenerateRequest request = Request("aaaa", 60);
  request.set_top_logprobs(20);
  const Generated free = Generate(model->service(), request);
  request.mutable_sampling()->set_presence_penalty(kPresence);
  request.mutable_sampling()->set_frequency_penalty(kFrequency);
  const Generated held = Generate(model->service(), request);
  EXPECT_EQ(held.tokens[0], free.tokens[0]);  // the output had none yet
  EXPECT_NE(held.tokens, free.tokens);
  std::map<int32_t, int> counts;
  for (size_t place = 0; place < held.tokens.size(); ++place) {
    double best = -1e9, chosen = -1e9;
    for (size_t i = 20 * place; i < 20 * (place + 1); ++i) {
      const int count = counts[held.top_ids[i]];
      const double logprob = held.top_logprobs[i] - kFrequency * count -
                             (count > 0 ? kPresence : 0);
      best = std::max(best, logprob);
      if (held.top_ids[i] == held.tokens[place]) chosen = logprob;
    }
    EXPECT_NEAR(chosen, best, 1e-4) << place;
    ++counts[held.tokens[place]];
  }
}

// Every way to steer, at a temperature that makes each token a draw.
std::vector<v1::GenerateRequest> SteeredRequests() {
  std::vector<v1::GenerateRequest> requests;
  for (int i = 0; i < 12; ++i) {
    v1::GenerateRequest request =
        Request(std::string(2 + 9 * (i % 5), 'a' + i), 40);
    v1::Sampling& sampling = *request.mutable_sampling();
    sampling.set_seed(i);
    sampling.set_temperature(1.2f);
    if (i % 2 == 1) sampling.set_top_p(0.9f);
    if (i % 3 == 1) sampling.set_presence_penalty(1.5);
    if (i % 3 == 2) sampling.set_frequency_penalty(0.5);
    if (i % 4 == 1) sampling.set_min_p(0.02f);
    if (i % 4 == 2) sampling.set_top_k(50);
    if (i % 4 == 3) (*sampling.mutable_logit_bias())[kTinyLetterA + i] = 2;
    request.set_top_logprobs(i % 6);
    requests.push_back(request);
  }
  return requests;
}

TEST(GenerationSamplingTest, DrawsDoNotDependOnWhatRunsBeside) {
  const std::vector<v1::GenerateRequest> requests = SteeredRequests();
  std::vector<Generated> alone;
  {
    const auto model = Serve(1, 1, "off");
    for (const auto& request : requests) {
      alone.push_back(Generate(model->service(), request));
      ASSERT_TRUE(alone.back().status.ok()) << alone.back().status;
    }
  }
  for (const int max_sequences : {3, 12}) {
    const auto model = Serve(max_sequences, 2, "always");
    std::vector<Generated> together(requests.size());
    std::vector<std::thread> threads;
    for (size_t i = requests.size(); i-- > 0;) {
      threads.emplace_back(
          [&, i] { together[i] = Generate(model->service(), requests[i]); });
    }
    for (std::thread& thread : threads) thread.join();
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_TRUE(SaysTheSame(together[i], alone[i]))
          << i << " of " << max_sequences;
    }
  }
}

// Where more than 8 are sampled together from their largest logits only.
TEST(GenerationSamplingTest, DrawsFromTheLargestLogitsAreThoseFromAll) {
  std::vector<v1::GenerateRequest> requests;
  for (int i = 0; i < 12; ++i) {
    v1::GenerateRequest request =
        TextRequest(std::string(static_cast<size_t>(1 + i), 'b'), 30);
    v1::Sampling& sampling = *request.mutable_sampling();
    sampling.set_temperature(static_cast<float>(i % 4) * 0.5f);
    sampling.set_top_k(1 + 13 * i);
    if (i % 3 == 0) sampling.set_top_p(0.8f);
    if (i % 5 == 0) sampling.set_min_p(0.1f);
    sampling.set_seed(static_cast<uint64_t>(i));
    requests.push_back(request);
  }
  TinyModelOptions tiny;
  tiny.suppressed_tokens = {kTinyLetterA, kTinyLetterA + 1};
  std::vector<Generated> alone;
  {
    const auto model = Serve(1, 1, "off", tiny);
    for (const auto& request : requests) {
      alone.push_back(Generate(model->service(), request));
      ASSERT_TRUE(alone.back().status.ok()) << alone.back().status;
    }
  }
  const auto model = Serve(12, 2, "always", tiny);
  std::vector<Generated> together(requests.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < requests.size(); ++i) {
    threads.emplace_back(
        [&, i] { together[i] = Generate(model->service(), requests[i]); });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(together[i].tokens, alone[i].tokens) << i;
  }
}

TEST(GenerationSamplingTest, WrongValuesAreRefusedByName) {
  const auto model = Serve(1, 1);
  const auto refuse = [&](const v1::GenerateRequest& request,
                          const char* part) {
    const absl::Status status = Generate(model->service(), request).status;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << part;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  };
  for (const float wrong : {-2.5f, 2.5f, 1e38f, std::nanf(""),
                            std::numeric_limits<float>::infinity()}) {
    v1::GenerateRequest request = Request("a", 5);
    request.mutable_sampling()->set_presence_penalty(wrong);
    refuse(request, "presence_penalty");
    request = Request("a", 5);
    request.mutable_sampling()->set_frequency_penalty(wrong);
    refuse(request, "frequency_penalty");
  }
  v1::GenerateRequest request = Request("a", 5);
  auto& bias = *request.mutable_sampling()->mutable_logit_bias();
  bias[7] = std::nanf("");
  refuse(request, "logit_bias of 7 is nan");
  bias[7] = 101;
  refuse(request, "expected -100..100");
  for (const int32_t token : {-1, kTinyVocab}) {
    bias.clear();
    bias[token] = 1;
    refuse(request, "expected 0..319");
  }
  bias.clear();
  for (int i = 0; i < 100'000; ++i) bias[i] = 1;
  refuse(request, "100000 entries, expected at most 1024");
  for (const int wrong : {-1, 21}) {
    request = Request("a", 5);
    request.set_top_logprobs(wrong);
    refuse(request, "top_logprobs");
  }
}

}  // namespace
}  // namespace onegrid::inference
