// Goal: requests that say what the output has to be get that, on a tiny random
// model, together with all else that a request may ask for.
#include <atomic>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/inference/generation_testing.h"

namespace onegrid::inference {
namespace {

constexpr char kSchema[] = R"({"type": "object",
    "properties": {"s": {"type": "string", "maxLength": 4},
                   "n": {"type": "integer", "minimum": -20, "maximum": 300},
                   "l": {"type": "array", "items": {"enum": ["é", null, 1.5]},
                         "maxItems": 2}},
    "required": ["s", "n"], "additionalProperties": false})";

v1::GenerateRequest Request(uint64_t seed, int max_tokens = 120) {
  v1::GenerateRequest request;
  request.set_text("abcabcab");
  request.mutable_stopping()->set_max_tokens(max_tokens);
  request.mutable_sampling()->set_temperature(1);
  request.mutable_sampling()->set_seed(seed);
  request.mutable_structure()->set_json_schema(kSchema);
  return request;
}

// Whether a text is JSON of kSchema.
bool Fits(const std::string& text) {
  const auto value = nlohmann::json::parse(text, nullptr, false);
  if (!value.is_object() || !value.contains("s") || !value.contains("n")) {
    return false;
  }
  for (const auto& [name, member] : value.items()) {
    if (name == "s") {
      if (!member.is_string()) return false;
    } else if (name == "n") {
      if (!member.is_number_integer() || member < -20 || member > 300) {
        return false;
      }
    } else if (name != "l" || !member.is_array() || member.size() > 2) {
      return false;
    }
  }
  return true;
}

class StructuredOutputTest : public testing::Test {
 protected:
  std::unique_ptr<ServedModel> Start(
      const std::string& prompt_lookup = "auto") {
    const std::string path = TestModelPath();
    EXPECT_TRUE(WriteTinyModel(path).ok());
    ServedModelOptions options;
    options.model_path = path;
    options.threads = {2, "--threads"};
    options.max_sequences = 4;
    options.prompt_lookup = prompt_lookup;
    options.max_step_tokens = 32;
    auto served = ServedModel::Load(options);
    EXPECT_TRUE(served.ok()) << served.status();
    return *std::move(served);
  }
};

TEST_F(StructuredOutputTest, SampledOutputsFitTheSchema) {
  const auto served = Start();
  for (uint64_t seed = 0; seed < 12; ++seed) {
    v1::GenerateRequest request = Request(seed);
    if (seed % 3 == 1) request.mutable_sampling()->set_top_p(0.9f);
    if (seed % 3 == 2) request.mutable_sampling()->set_repetition_penalty(1.3f);
    const Generated result = Generate(served->service(), request);
    ASSERT_TRUE(result.status.ok()) << result.status;
    EXPECT_EQ(result.finished.reason(), v1::END_OF_SEQUENCE);
    EXPECT_TRUE(Fits(result.text)) << result.text;
  }
}

TEST_F(StructuredOutputTest, GreedyRegexAndChoicesFit) {
  const auto served = Start();
  v1::GenerateRequest request = Request(1);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_structure()->set_regex("(x|é){3}-[0-9]{2}");
  Generated result = Generate(served->service(), request);
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.finished.reason(), v1::END_OF_SEQUENCE);
  EXPECT_EQ(result.text[result.text.size() - 3], '-') << result.text;
  auto* choices = request.mutable_structure()->mutable_choices();
  choices->add_texts("日本");
  choices->add_texts("no");
  request.mutable_stopping()->set_ignore_eos(true);
  result = Generate(served->service(), request);
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.finished.reason(), v1::END_OF_SEQUENCE);
  EXPECT_TRUE(result.text == "日本" || result.text == "no") << result.text;
}

TEST_F(StructuredOutputTest, GuessesDoNotChangeTheOutput) {
  const auto without = Start("off");
  const auto with = Start("always");
  for (uint64_t seed = 0; seed < 6; ++seed) {
    v1::GenerateRequest request = Request(seed);
    // Guesses come from texts that the output repeats.
    request.set_text(R"({"s":"aaaa","n":111}{"s":"aaaa","n":111}{"s":")");
    if (seed % 2 == 0) request.mutable_sampling()->set_temperature(0);
    const Generated a = Generate(without->service(), request);
    const Generated b = Generate(with->service(), request);
    ASSERT_TRUE(a.status.ok() && b.status.ok()) << a.status << b.status;
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_TRUE(Fits(b.text)) << b.text;
  }
  EXPECT_GT(with->scheduler().load().drafts.tried, 0);
}

TEST_F(StructuredOutputTest, RequestsOfDifferentStructuresRunTogether) {
  const auto served = Start();
  std::vector<v1::GenerateRequest> requests;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    requests.push_back(Request(seed, 40));
    if (seed % 3 == 1) requests.back().mutable_structure()->set_regex("a+b{3}");
    if (seed % 3 == 2) requests.back().clear_structure();
  }
  std::vector<Generated> alone;
  for (const auto& request : requests) {
    alone.push_back(Generate(served->service(), request));
  }
  std::vector<Generated> together(requests.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < requests.size(); ++i) {
    threads.emplace_back(
        [&, i] { together[i] = Generate(served->service(), requests[i]); });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_TRUE(together[i].status.ok()) << together[i].status;
    EXPECT_EQ(together[i].tokens, alone[i].tokens) << i;
  }
}

TEST_F(StructuredOutputTest, MaxTokensCutsAndSaysSo) {
  const auto served = Start();
  const Generated result = Generate(served->service(), Request(1, 5));
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.finished.reason(), v1::MAX_TOKENS);
  EXPECT_EQ(result.tokens.size(), 5u);
  EXPECT_EQ(result.text, "{\"s\":");
}

TEST_F(StructuredOutputTest, StopStringsCutWithinAString) {
  const auto served = Start();
  v1::GenerateRequest request = Request(1);
  request.mutable_structure()->set_regex("abc\"def\"");
  request.mutable_stopping()->add_stop("\"d");
  const Generated result = Generate(served->service(), request);
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.finished.reason(), v1::STOP_STRING);
  EXPECT_EQ(result.text, "abc");
}

TEST_F(StructuredOutputTest, LogprobsAreThoseOfTheModelItself) {
  const auto served = Start();
  v1::GenerateRequest request = Request(1);
  request.mutable_structure()->set_regex("zqx");
  request.set_logprobs(true);
  const Generated result = Generate(served->service(), request);
  ASSERT_TRUE(result.status.ok()) << result.status;
  ASSERT_EQ(result.logprobs.size(), 3u);
  // Under the structure each would be certain.
  for (const float logprob : result.logprobs) EXPECT_LT(logprob, -0.1f);
}

TEST_F(StructuredOutputTest, ACancelledRequestEnds) {
  const auto served = Start();
  v1::GenerateRequest request = Request(1, 200);
  request.mutable_structure()->set_regex("a*");
  request.mutable_stopping()->set_ignore_eos(true);
  CallContext context;
  std::atomic<int> asked = 0;
  context.cancelled = [&] { return ++asked > 10; };
  const Generated result = Generate(served->service(), request, context);
  EXPECT_EQ(result.status.code(), absl::StatusCode::kCancelled);
}

TEST_F(StructuredOutputTest, WhatCannotBeHeldToIsRefused) {
  const auto served = Start();
  v1::GenerateRequest request = Request(1);
  request.mutable_structure()->set_json_schema(R"({"not": {}})");
  const Generated result = Generate(served->service(), request);
  EXPECT_EQ(result.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(common::ErrorReason(result.status), "STRUCTURE_NOT_SUPPORTED");
}

}  // namespace
}  // namespace onegrid::inference
