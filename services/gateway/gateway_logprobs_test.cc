// Goal: what clients see of log-probabilities, of prompts that are repeated,
// and of fields that steer the backend.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "services/gateway/fake_backend.h"
#include "services/gateway/gateway_testing.h"

namespace onegrid::gateway {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class GatewayLogprobsTest : public GatewayTest {
 protected:
  // The choices of an answer.
  json Choices(const std::string& path, const json& body) {
    const HttpResponse response = PostJson(path, body);
    EXPECT_EQ(response.status, 200) << response.body;
    return json::parse(response.body).value("choices", json::array());
  }

  // Of a stream with one choice, its text and what its chunks say of tokens,
  // joined as a whole answer has it.
  json Joined(json body) {
    body["stream"] = true;
    json joined = {{"text", ""}, {"logprobs", json::object()}};
    for (const std::string& event : Events(PostJson(kCompletions, body).body)) {
      if (event == "[DONE]") break;
      const json choice = json::parse(event)["choices"][0];
      joined["text"] =
          std::string(joined["text"]) + std::string(choice["text"]);
      if (choice["finish_reason"].is_string()) {
        joined["finish_reason"] = choice["finish_reason"];
      }
      for (const auto& [name, values] : choice["logprobs"].items()) {
        for (const json& value : values) {
          joined["logprobs"][name].push_back(value);
        }
      }
    }
    return joined;
  }
};

TEST_F(GatewayLogprobsTest, TopLogprobsOfAChat) {
  json body = ChatBody("say:h\u00e9");
  body.update({{"logprobs", true}, {"top_logprobs", 2}});
  const json content = Choices(kChat, body)[0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 2);
  EXPECT_EQ(content[0], json::parse(R"(
    {"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[
      {"token":"h","logprob":-0.5,"bytes":[104]},
      {"token":"i","logprob":-1.5,"bytes":[105]}]})"));
  EXPECT_EQ(content[1]["bytes"], json::parse("[195,169]"));
  EXPECT_EQ(fake_.requests()[0].top_logprobs(), 2);

  body["stream"] = true;
  json streamed = json::array();
  for (const std::string& event : Events(PostJson(kChat, body).body)) {
    if (event == "[DONE]") break;
    const json logprobs = json::parse(event)["choices"][0]["logprobs"];
    if (logprobs.is_null()) continue;
    for (const json& token : logprobs["content"]) streamed.push_back(token);
  }
  EXPECT_EQ(streamed, content);
}

TEST_F(GatewayLogprobsTest, TokensThatArePartsOfACharacterHaveTheirBytes) {
  json body = ChatBody("bytes:\u20ac");
  body.update({{"logprobs", true}});
  const json choice = Choices(kChat, body)[0];
  EXPECT_EQ(choice["message"]["content"], "\u20ac");
  const json content = choice["logprobs"]["content"];
  ASSERT_EQ(content.size(), 3);
  EXPECT_EQ(content[0]["token"], "bytes:\\xe2");
  EXPECT_EQ(content[2]["bytes"], json::parse("[172]"));
}

TEST_F(GatewayLogprobsTest, TopLogprobsOfACompletionWholeAndStreamed) {
  json body = Body("unlikely say:ab");
  body["logprobs"] = 2;
  const json choice = Choices(kCompletions, body)[0];
  // The token that is there is named beside the most likely ones.
  EXPECT_EQ(choice["logprobs"], json::parse(R"({
    "tokens":["a","b"],"token_logprobs":[-0.5,-0.5],"text_offset":[0,1],
    "top_logprobs":[{"b":-0.25,"c":-0.5,"a":-0.5},
                    {"c":-0.25,"d":-0.5,"b":-0.5}]})"));
  EXPECT_EQ(Joined(body)["logprobs"], choice["logprobs"]);
}

TEST_F(GatewayLogprobsTest, TheVocabularyIsAskedForOnceAndOnlyIfNeeded) {
  PostJson(kCompletions, Body("a"));
  EXPECT_EQ(fake_.vocabulary().calls(), 0);
  json body = Body("a");
  body["logprobs"] = 1;
  PostJson(kCompletions, body);
  PostJson(kCompletions, body);
  EXPECT_EQ(fake_.vocabulary().calls(), 1);
}

TEST_F(GatewayLogprobsTest, EchoRepeatsThePromptBeforeTheAnswer) {
  json body = Body("h\u00e9");
  body.update({{"echo", true}, {"max_tokens", 2}});
  EXPECT_EQ(Choices(kCompletions, body)[0]["text"], "h\u00e9<b");
  EXPECT_EQ(Joined(body)["text"], "h\u00e9<b");
  // Of ids, their text without BOS.
  body["prompt"] = {FakeBackend::kBos, FakeBackend::kFirstByte + 'x'};
  EXPECT_EQ(Choices(kCompletions, body)[0]["text"], "x<b");
}

TEST_F(GatewayLogprobsTest, EchoWithLogprobsScoresThePrompt) {
  json body = Body("hi");
  body.update({{"echo", true}, {"max_tokens", 1}, {"logprobs", 1}});
  const json expected = json::parse(R"({
    "tokens":["<bos>","h","i","<"],"token_logprobs":[null,-0.5,-0.5,-0.5],
    "text_offset":[0,0,1,2],
    "top_logprobs":[null,{"h":-0.5},{"i":-0.5},{"<":-0.5}]})");
  const json choice = Choices(kCompletions, body)[0];
  EXPECT_EQ(choice["text"], "hi<");
  EXPECT_EQ(choice["logprobs"], expected);
  EXPECT_EQ(Joined(body)["logprobs"], expected);
}

TEST_F(GatewayLogprobsTest, EchoAloneGeneratesNothing) {
  json body = Body("hi");
  body.update({{"echo", true},
               {"max_tokens", 0},
               {"logprobs", 0},
               {"n", 2},
               {"prompt", {"hi", "x"}}});
  const HttpResponse response = PostJson(kCompletions, body);
  ASSERT_EQ(response.status, 200) << response.body;
  const json answer = json::parse(response.body);
  ASSERT_EQ(answer["choices"].size(), 4);
  EXPECT_EQ(answer["choices"][1]["text"], "hi");
  EXPECT_EQ(answer["choices"][3]["text"], "x");
  EXPECT_EQ(answer["choices"][3]["index"], 3);
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(answer["choices"][0]["logprobs"]["token_logprobs"],
            json::parse("[null,-0.5,-0.5]"));
  EXPECT_TRUE(answer["choices"][0]["logprobs"]["top_logprobs"].is_null());
  // Each prompt counts once, with its BOS.
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 5);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 0);
  EXPECT_EQ(answer["system_fingerprint"], "0123456789ab");
  EXPECT_TRUE(fake_.requests().empty());

  body = Body("hi");
  body.update({{"echo", true}, {"max_tokens", 0}});
  const json streamed = Joined(body);
  EXPECT_EQ(streamed["text"], "hi");
  EXPECT_EQ(streamed["finish_reason"], "length");
}

TEST_F(GatewayLogprobsTest, WhatAHarnessReadsOfAnEcho) {
  // The sum over a continuation, and whether it is what greedy would say:
  // prompts of ids, one token more than asked for, which is cut off again.
  json body = Body("");
  std::vector<int32_t> ids = {FakeBackend::kBos};
  for (const char byte : std::string("question answer")) {
    ids.push_back(FakeBackend::kFirstByte + byte);
  }
  body.update({{"prompt", {ids}},
               {"echo", true},
               {"max_tokens", 1},
               {"logprobs", 1},
               {"temperature", 0}});
  const json logprobs = Choices(kCompletions, body)[0]["logprobs"];
  const size_t context = 10;
  double sum = 0;
  for (size_t i = context; i + 1 < logprobs["tokens"].size(); ++i) {
    sum += logprobs["token_logprobs"][i].get<double>();
    EXPECT_EQ(logprobs["top_logprobs"][i].size(), 1);
  }
  EXPECT_EQ(sum, -0.5 * static_cast<double>(ids.size() - context));
}

TEST_F(GatewayLogprobsTest, RefusalsOfAnEchoAreHttpStatuses) {
  for (const bool stream : {false, true}) {
    json body = Body("queue full");
    body.update({{"echo", true}, {"logprobs", 1}, {"stream", stream}});
    EXPECT_EQ(PostJson(kCompletions, body).status, 429);
    body["prompt"] = "too long";
    EXPECT_EQ(ErrorOf(PostJson(kCompletions, body))["code"],
              "context_length_exceeded");
    body["prompt"] = {5, 100'000};
    body["max_tokens"] = 0;
    const HttpResponse response = PostJson(kCompletions, body);
    EXPECT_EQ(response.status, 400);
    EXPECT_THAT(response.body, HasSubstr("token id 100000, expected 0..402"));
  }
  options_.timeout = absl::Milliseconds(50);
  Restart();
  json body = Body("silent");
  body.update({{"echo", true}, {"logprobs", 1}});
  EXPECT_EQ(PostJson(kCompletions, body).status, 504);
}

TEST_F(GatewayLogprobsTest, ScoresOfAPromptStandWhereItsRequestDoes) {
  json body = Body("abc");
  body.update({{"echo", true},
               {"logprobs", 1},
               {"priority", 3},
               {"user", "u"},
               {"cache_salt", "s"}});
  EXPECT_EQ(PostJson(kCompletions, body).status, 200);
  ASSERT_EQ(fake_.score_requests().size(), 1u);
  const v1::ScoreTokensRequest score = fake_.score_requests()[0];
  EXPECT_EQ(score.priority(), -3);
  EXPECT_EQ(score.caller(), "u");
  EXPECT_EQ(score.cache_salt(), "s");
}

TEST_F(GatewayLogprobsTest, WhatSteersReachesTheBackend) {
  json body = Body("a");
  body.update({{"presence_penalty", 1.5},
               {"frequency_penalty", -0.5},
               {"logit_bias", {{"7", -100}}},
               {"stop_token_ids", {9}},
               {"priority", -2},
               {"user", "u"},
               {"cache_salt", "s"}});
  EXPECT_EQ(PostJson(kCompletions, body).status, 200);
  const v1::GenerateRequest request = fake_.requests()[0];
  EXPECT_EQ(request.sampling().presence_penalty(), 1.5);
  EXPECT_EQ(request.sampling().frequency_penalty(), -0.5);
  EXPECT_EQ(request.sampling().logit_bias().at(7), -100);
  EXPECT_EQ(request.stopping().stop_token_ids(0), 9);
  EXPECT_EQ(request.priority(), 2);
  EXPECT_EQ(request.caller(), "u");
  EXPECT_EQ(request.cache_salt(), "s");
  PostJson(kCompletions, Body("a"));
  const v1::GenerateRequest plain = fake_.requests()[1];
  EXPECT_EQ(plain.priority(), 0);
  EXPECT_EQ(plain.caller() + plain.cache_salt(), "");
  EXPECT_EQ(plain.top_logprobs(), 0);
}

}  // namespace
}  // namespace onegrid::gateway
