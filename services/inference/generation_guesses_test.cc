// Goal: guesses that run ahead change nothing but the steps.
// Method: a tiny random model with all guesses run and with none.
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/inference/generation_testing.h"

namespace onegrid::inference {
namespace {

using ::testing::HasSubstr;

// Requests that end in every way, long enough to pass the window and the
// pages of 64 tokens, some greedy, some drawn.
std::vector<v1::GenerateRequest> ManyRequests() {
  std::vector<v1::GenerateRequest> requests;
  for (int i = 0; i < 12; ++i) {
    v1::GenerateRequest request = TextRequest(
        absl::StrCat("abcabcab", std::string(i, 'a' + i), "cab"), 60 + 11 * i);
    request.set_logprobs(true);
    if (i % 3 == 1) {
      request.mutable_sampling()->set_temperature(10);
      request.mutable_sampling()->set_top_k(2);
      request.mutable_sampling()->set_seed(i);
    }
    if (i % 3 == 2) {
      request.mutable_sampling()->set_repetition_penalty(1.1f);
    }
    if (i == 4) request.mutable_stopping()->add_stop("a");
    if (i == 5) request.mutable_stopping()->set_ignore_eos(false);
    if (i == 6) request.mutable_stopping()->set_max_tokens(1000);
    requests.push_back(request);
  }
  return requests;
}

class GuessesTest : public GenerationServiceTest,
                    public testing::WithParamInterface<const char*> {};

TEST_P(GuessesTest, ChangeNothingButTheSteps) {
  Start(4, 16, "off", GetParam());
  EXPECT_EQ(service().info().speculation(), "off");
  std::vector<Generated> plain;
  for (const auto& request : ManyRequests()) {
    plain.push_back(Generate(service(), request));
  }
  EXPECT_EQ(served_->scheduler().load().drafts.tried, 0);
  served_.reset();

  Start(4, 16, "always", GetParam());
  EXPECT_THAT(service().info().speculation(), HasSubstr("up to 8 tokens"));
  const std::vector<v1::GenerateRequest> requests = ManyRequests();
  std::vector<Generated> guessed(requests.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < requests.size(); ++i) {
    threads.emplace_back(
        [&, i] { guessed[i] = Generate(service(), requests[i]); });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_TRUE(guessed[i].status.ok()) << guessed[i].status;
    EXPECT_EQ(guessed[i].tokens, plain[i].tokens) << i;
    EXPECT_EQ(guessed[i].text, plain[i].text) << i;
    EXPECT_EQ(guessed[i].logprobs, plain[i].logprobs) << i;
    EXPECT_EQ(guessed[i].finished.reason(), plain[i].finished.reason()) << i;
  }
  // Right and wrong guesses were there: rows were kept and taken back.
  const DraftCount drafts = served_->scheduler().load().drafts;
  EXPECT_GT(drafts.accepted, 50);
  EXPECT_GT(drafts.tried, drafts.accepted + 20);
}

// A stop string that ends within guesses that are right: the model repeats
// itself, and the string is longer than what it repeats.
TEST_P(GuessesTest, EndWhereTheOutputEnds) {
  const auto run = [&](const char* lookup, const std::string& stop, int i) {
    Start(4, 16, lookup, GetParam());
    v1::GenerateRequest request =
        TextRequest(absl::StrCat("abcabcab", std::string(i, 'a' + i)), 60);
    if (!stop.empty()) request.mutable_stopping()->add_stop(stop);
    return Generate(service(), request);
  };
  for (int i = 1; i < 6; ++i) {
    const std::string text = run("off", "", i).text;
    ASSERT_GT(text.size(), 50u);
    const std::string stop = text.substr(10, 30);
    const Generated plain = run("off", stop, i);
    const Generated guessed = run("always", stop, i);
    EXPECT_EQ(plain.finished.reason(), v1::STOP_STRING);
    EXPECT_EQ(guessed.finished.reason(), v1::STOP_STRING);
    EXPECT_EQ(guessed.tokens, plain.tokens);
    EXPECT_EQ(guessed.text, plain.text);
    EXPECT_EQ(guessed.finished.completion_tokens(),
              plain.finished.completion_tokens());
  }
}

INSTANTIATE_TEST_SUITE_P(Precisions, GuessesTest,
                         testing::Values("int8", "f32"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace onegrid::inference
