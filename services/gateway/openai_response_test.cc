#include "services/gateway/openai_response.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

namespace onegrid::gateway {
namespace {

using nlohmann::json;

ResponseHead Head(bool chat) {
  ResponseHead head;
  head.chat = chat;
  head.id = "id-1";
  head.created_seconds = 5;
  head.model = "m";
  return head;
}

TEST(OpenAiResponseTest, WholeChatAnswer) {
  const json answer =
      json::parse(ResponseJson(Head(true), {{0, "hi", {}, "stop"}}, {3, 1, 2}));
  EXPECT_EQ(answer, json::parse(R"({
    "id":"id-1","object":"chat.completion","created":5,"model":"m",
    "system_fingerprint":null,
    "choices":[{"index":0,"finish_reason":"stop","logprobs":null,"message":
      {"role":"assistant","content":"hi","refusal":null}}],
    "usage":{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":1},
      "completion_tokens":2,"total_tokens":5}})"));
}

// Two tokens with an alternative each, at the beginning of an answer.
std::vector<GeneratedToken> TwoTokens() {
  return {{{"\u00e9"}, -0.5, {{{"\u00e9"}, -0.5}, {{"x"}, -2}}, 0},
          {{"b"}, -1.5, {{{"<eos>", true}, -0.25}, {{"\xe2\x82"}, -1}}, 1}};
}

TEST(OpenAiResponseTest, WholeCompletionWithLogprobs) {
  ResponseHead head = Head(false);
  head.logprobs = true;
  head.top_logprobs = 2;
  const json answer = json::parse(
      ResponseJson(head, {{1, "\u00e9b", TwoTokens(), "length"}}, {}));
  // The token that is there is named beside the two most likely ones.
  EXPECT_EQ(answer["choices"][0], json::parse(R"({
    "index":1,"finish_reason":"length","text":"\u00e9b","logprobs":{
      "tokens":["\u00e9","b"],"token_logprobs":[-0.5,-1.5],
      "text_offset":[0,1],"top_logprobs":[{"\u00e9":-0.5,"x":-2.0},
        {"<eos>":-0.25,"bytes:\\xe2\\x82":-1.0,"b":-1.5}]}})"));
}

TEST(OpenAiResponseTest, APromptsFirstTokenHasNoLogprob) {
  ResponseHead head = Head(false);
  head.logprobs = true;
  head.top_logprobs = 1;
  GeneratedToken first;
  first.token = {"a"};
  const json answer =
      json::parse(ResponseJson(head, {{0, "a", {first}, "length"}}, {}));
  EXPECT_EQ(answer["choices"][0]["logprobs"], json::parse(R"({
    "tokens":["a"],"token_logprobs":[null],"top_logprobs":[null],
    "text_offset":[0]})"));
}

TEST(OpenAiResponseTest, ChatLogprobsHaveBytes) {
  ResponseHead head = Head(true);
  head.logprobs = true;
  head.top_logprobs = 2;
  const json answer = json::parse(
      ResponseJson(head, {{0, "\u00e9b", TwoTokens(), "stop"}}, {}));
  EXPECT_EQ(answer["choices"][0]["logprobs"], json::parse(R"({"content":[
    {"token":"\u00e9","logprob":-0.5,"bytes":[195,169],"top_logprobs":[
      {"token":"\u00e9","logprob":-0.5,"bytes":[195,169]},
      {"token":"x","logprob":-2.0,"bytes":[120]}]},
    {"token":"b","logprob":-1.5,"bytes":[98],"top_logprobs":[
      {"token":"<eos>","logprob":-0.25,"bytes":null},
      {"token":"bytes:\\xe2\\x82","logprob":-1.0,"bytes":[226,130]}]}]})"));
}

TEST(OpenAiResponseTest, NoLogprobIsInfinite) {
  ResponseHead head = Head(false);
  head.logprobs = true;
  const double infinity = std::numeric_limits<double>::infinity();
  const json answer = json::parse(ResponseJson(
      head, {{0, "ab", {{{"a"}, -infinity}, {{"b"}, NAN}}, ""}}, {}));
  EXPECT_EQ(answer["choices"][0]["logprobs"]["token_logprobs"],
            json::parse("[-9999.0,-9999.0]"));
}

TEST(OpenAiResponseTest, ChunksOfAChat) {
  const json opening = json::parse(ChunkJson(Head(true), {}, true, true));
  EXPECT_EQ(opening["object"], "chat.completion.chunk");
  EXPECT_EQ(opening["choices"][0]["delta"],
            json::parse(R"({"role":"assistant","content":""})"));
  EXPECT_TRUE(opening.contains("usage"));
  EXPECT_TRUE(opening["usage"].is_null());
  const json text =
      json::parse(ChunkJson(Head(true), {0, "a", {}, ""}, false, false));
  EXPECT_EQ(text["choices"][0]["delta"], json::parse(R"({"content":"a"})"));
  EXPECT_TRUE(text["choices"][0]["finish_reason"].is_null());
  EXPECT_FALSE(text.contains("usage"));
  const json end =
      json::parse(ChunkJson(Head(true), {0, "", {}, "stop"}, false, false));
  EXPECT_EQ(end["choices"][0]["delta"], json::object());
  EXPECT_EQ(end["choices"][0]["finish_reason"], "stop");
}

TEST(OpenAiResponseTest, UsageChunkHasNoChoices) {
  const json chunk = json::parse(UsageChunkJson(Head(true), {4, 0, 6}));
  EXPECT_EQ(chunk["choices"], json::array());
  EXPECT_EQ(chunk["usage"]["total_tokens"], 10);
}

TEST(OpenAiResponseTest, AnEventIsOneLineWhateverTheText) {
  const std::string event = SseEvent(
      ChunkJson(Head(false), {0, "a\n\ndata: b\r\n", {}, ""}, false, false));
  EXPECT_EQ(event.substr(0, 6), "data: ");
  EXPECT_EQ(event.find('\n'), event.size() - 2);
  EXPECT_EQ(event.find('\r'), std::string::npos);
}

TEST(OpenAiResponseTest, FinishReasons) {
  EXPECT_EQ(FinishReasonName(v1::END_OF_SEQUENCE), "stop");
  EXPECT_EQ(FinishReasonName(v1::STOP_STRING), "stop");
  EXPECT_EQ(FinishReasonName(v1::STOP_TOKEN), "stop");
  EXPECT_EQ(FinishReasonName(v1::MAX_TOKENS), "length");
  EXPECT_EQ(FinishReasonName(v1::CONTEXT_FULL), "length");
}

}  // namespace
}  // namespace onegrid::gateway
