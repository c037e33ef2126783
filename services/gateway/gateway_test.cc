// Goal: what clients see of completions. Method: services/gateway/
// gateway_testing.h.
#include "services/gateway/gateway.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "services/gateway/gateway_testing.h"

namespace onegrid::gateway {
namespace {

using nlohmann::json;
using ::testing::StartsWith;

TEST_F(GatewayTest, CompletionRepeatsItsPrompt) {
  const HttpResponse response = PostJson(kCompletions, Body("h\u00e9"));
  ASSERT_EQ(response.status, 200);
  const json answer = json::parse(response.body);
  EXPECT_EQ(answer["choices"][0]["text"], "<bos>h\u00e9");
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 7);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 7);
  EXPECT_EQ(answer["system_fingerprint"], "0123456789ab");
}

TEST_F(GatewayTest, StreamHasOneEventAToken) {
  json body = Body("ab");
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  const HttpResponse response = PostJson(kCompletions, body);
  EXPECT_THAT(response.content_type, StartsWith("text/event-stream"));
  const std::vector<std::string> events = Events(response.body);
  // Seven characters, the finish, the usage, the end.
  ASSERT_EQ(events.size(), 10);
  std::string text;
  for (int i = 0; i < 7; ++i) {
    text += json::parse(events[i])["choices"][0]["text"];
  }
  EXPECT_EQ(text, "<bos>ab");
  EXPECT_EQ(json::parse(events[7])["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(json::parse(events[8])["usage"]["completion_tokens"], 7);
  EXPECT_EQ(events[9], "[DONE]");
}

TEST_F(GatewayTest, AnswersOfOneRequestHaveSeedsOfTheirOwn) {
  json body = Body("a");
  body["prompt"] = {"a", "b"};
  body["n"] = 2;
  body["seed"] = 7;
  const json answer = json::parse(PostJson(kCompletions, body).body);
  ASSERT_EQ(answer["choices"].size(), 4);
  EXPECT_EQ(answer["choices"][1]["text"], "<bos>a");
  EXPECT_EQ(answer["choices"][2]["text"], "<bos>b");
  EXPECT_EQ(answer["choices"][3]["index"], 3);
  // Each prompt counts once.
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 12);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 24);
  std::multiset<uint64_t> seeds;
  for (const auto& request : fake_.requests()) {
    seeds.insert(request.sampling().seed());
  }
  EXPECT_EQ(seeds, (std::multiset<uint64_t>{7, 7, 8, 8}));
}

TEST_F(GatewayTest, WithoutASeedEachRequestDrawsOne) {
  PostJson(kCompletions, Body("a"));
  PostJson(kCompletions, Body("a"));
  ASSERT_EQ(fake_.requests().size(), 2);
  EXPECT_NE(fake_.requests()[0].sampling().seed(),
            fake_.requests()[1].sampling().seed());
}

TEST_F(GatewayTest, SamplingAndStopsReachTheBackend) {
  json body = Body("abcdef");
  body.update({{"temperature", 0.5}, {"top_k", 4}, {"stop", "de"}});
  const json answer = json::parse(PostJson(kCompletions, body).body);
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
  EXPECT_THAT(std::string(answer["choices"][0]["text"]),
              StartsWith("<bos>abc"));
  ASSERT_EQ(fake_.requests().size(), 1);
  const v1::GenerateRequest request = fake_.requests()[0];
  EXPECT_FLOAT_EQ(request.sampling().temperature(), 0.5);
  EXPECT_EQ(request.sampling().top_k(), 4);
  EXPECT_EQ(request.stopping().stop(0), "de");
  EXPECT_EQ(request.stopping().max_tokens(), 100);
}

TEST_F(GatewayTest, LogprobsBelongToTheirTokens) {
  json body = ChatBody("u");
  body.update({{"logprobs", true}, {"max_tokens", 3}});
  const json whole = json::parse(PostJson(kChat, body).body);
  const json content = whole["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 3);
  EXPECT_EQ(content[1]["token"], "b");
  EXPECT_EQ(content[1]["logprob"], -0.5);
  json stream = Body("ab");
  stream.update({{"logprobs", 0}, {"max_tokens", 2}, {"stream", true}});
  const auto events = Events(PostJson(kCompletions, stream).body);
  EXPECT_EQ(json::parse(events[1])["choices"][0]["logprobs"]["text_offset"],
            json::parse("[1]"));
}

}  // namespace
}  // namespace onegrid::gateway
