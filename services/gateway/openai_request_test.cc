#include "services/gateway/openai_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <variant>

#include "absl/strings/str_cat.h"
#include "services/gateway/openai_request_testing.h"

namespace onegrid::gateway {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(OpenAiRequestTest, EveryFieldOfACompletionIsRead) {
  const auto request = Parsed(ParseCompletionRequest(Completion(
      R"("n":2,"max_tokens":7,"temperature":0.5,"top_p":0.25,"top_k":3,
         "min_p":0.125,"seed":9,"stop":["a","b"],"repetition_penalty":1.5,
         "logprobs":0,"stream":true,"stream_options":{"include_usage":true},
         "ignore_eos":true)")));
  EXPECT_FALSE(request.chat);
  EXPECT_EQ(request.model, "m");
  ASSERT_EQ(request.prompts.size(), 1);
  EXPECT_EQ(std::get<std::string>(request.prompts[0]), "p");
  EXPECT_EQ(request.n, 2);
  EXPECT_EQ(request.stopping.max_tokens(), 7);
  EXPECT_FLOAT_EQ(request.sampling.temperature(), 0.5);
  EXPECT_FLOAT_EQ(request.sampling.top_p(), 0.25);
  EXPECT_EQ(request.sampling.top_k(), 3);
  EXPECT_FLOAT_EQ(request.sampling.min_p(), 0.125);
  EXPECT_FLOAT_EQ(request.sampling.repetition_penalty(), 1.5);
  EXPECT_EQ(request.seed, 9);
  EXPECT_EQ(request.stopping.stop_size(), 2);
  EXPECT_TRUE(request.logprobs);
  EXPECT_TRUE(request.stream);
  EXPECT_TRUE(request.include_usage);
  EXPECT_TRUE(request.stopping.ignore_eos());
}

TEST(OpenAiRequestTest, DefaultsAreThoseOfTheApi) {
  const auto completion = Parsed(ParseCompletionRequest(Completion("")));
  EXPECT_EQ(completion.sampling.temperature(), 1);
  EXPECT_EQ(completion.sampling.top_p(), 1);
  EXPECT_EQ(completion.stopping.max_tokens(), 16);
  EXPECT_FALSE(completion.logprobs);
  EXPECT_EQ(completion.seed, std::nullopt);
  const auto chat = Parsed(ParseChatRequest(Chat("")));
  EXPECT_GT(chat.stopping.max_tokens(), 1 << 20);
}

TEST(OpenAiRequestTest, NullIsAbsentAndUnknownIsIgnored) {
  const auto request = Parsed(ParseCompletionRequest(
      Completion(R"("temperature":null,"stop":null,"stream":null,
                    "logprobs":null,"user":"u","nobody_knows":[1])")));
  EXPECT_EQ(request.sampling.temperature(), 1);
  EXPECT_FALSE(request.logprobs);
}

TEST(OpenAiRequestTest, PromptsMayBeTextsAndTokens) {
  const auto texts =
      Parsed(ParseCompletionRequest(R"({"model":"m","prompt":["a","b"]})"));
  EXPECT_EQ(texts.prompts.size(), 2);
  const auto tokens =
      Parsed(ParseCompletionRequest(R"({"model":"m","prompt":[1,2]})"));
  ASSERT_EQ(tokens.prompts.size(), 1);
  EXPECT_EQ(std::get<v1::TokenIds>(tokens.prompts[0]).ids(1), 2);
  const auto lists =
      Parsed(ParseCompletionRequest(R"({"model":"m","prompt":[[1],[2,3]]})"));
  EXPECT_EQ(lists.prompts.size(), 2);
}

TEST(OpenAiRequestTest, MaxCompletionTokensGoesFirst) {
  const auto request = Parsed(
      ParseChatRequest(Chat(R"("max_completion_tokens":5,"max_tokens":9)")));
  EXPECT_EQ(request.stopping.max_tokens(), 5);
}

TEST(OpenAiRequestTest, NegativeAndLargeSeedsAreSeeds) {
  EXPECT_EQ(Parsed(ParseCompletionRequest(Completion(R"("seed":-1)"))).seed,
            UINT64_MAX);
  EXPECT_EQ(Parsed(ParseCompletionRequest(
                       Completion(R"("seed":18446744073709551615)")))
                .seed,
            UINT64_MAX);
}

TEST(OpenAiRequestTest, ATinyTopPIsNotTheValueThatKeepsAll) {
  const auto request =
      Parsed(ParseCompletionRequest(Completion(R"("top_p":1e-300)")));
  EXPECT_GT(request.sampling.top_p(), 0);
}

TEST(OpenAiRequestTest, WrongValuesAreRefusedByName) {
  const struct {
    const char* fields;
    const char* param;
  } cases[] = {
      {R"("max_tokens":0)", "max_tokens"},
      {R"("max_tokens":-5)", "max_tokens"},
      {R"("max_tokens":1.5)", "max_tokens"},
      {R"("max_tokens":"9")", "max_tokens"},
      {R"("max_tokens":99999999999999999999)", "max_tokens"},
      {R"("max_tokens":18446744073709551615)", "max_tokens"},
      {R"("temperature":-0.1)", "temperature"},
      {R"("temperature":11)", "temperature"},
      {R"("temperature":"hot")", "temperature"},
      {R"("temperature":{})", "temperature"},
      {R"("top_p":0)", "top_p"},
      {R"("top_p":1.01)", "top_p"},
      {R"("top_k":-2)", "top_k"},
      {R"("min_p":2)", "min_p"},
      {R"("repetition_penalty":0)", "repetition_penalty"},
      {R"("n":0)", "n"},
      {R"("n":17)", "n"},
      {R"("n":true)", "n"},
      {R"("seed":1.5)", "seed"},
      {R"("seed":"1")", "seed"},
      {R"("stop":5)", "stop"},
      {R"("stop":[""])", "stop"},
      {R"("stop":["a",5])", "stop"},
      {R"("stop":["1","2","3","4","5","6","7","8","9","10","11","12","13",
                  "14","15","16","17"])",
       "stop"},
      {R"("stream":"yes")", "stream"},
      {R"("stream_options":{"include_usage":true})", "stream_options"},
      {R"("stream":true,"stream_options":7)", "stream_options"},
      {R"("model":7)", "model"},
      {R"("model":"")", "model"},
  };
  for (const auto& c : cases) {
    for (const auto& result : {ParseCompletionRequest(Completion(c.fields)),
                               ParseChatRequest(Chat(c.fields))}) {
      const ApiError error = ErrorOf(result);
      EXPECT_EQ(error.http_status, 400) << c.fields;
      EXPECT_EQ(error.param, c.param) << c.fields << ": " << error.message;
      EXPECT_EQ(error.type, "invalid_request_error");
    }
  }
}

TEST(OpenAiRequestTest, WhatWouldChangeTheAnswerIsRefusedByName) {
  const struct {
    const char* refused;
    const char* param;
    // The same field at a value that changes nothing.
    const char* taken;
  } cases[] = {
      {R"("suffix":"s")", "suffix", R"("suffix":"")"},
      {R"("best_of":2)", "best_of", R"("best_of":1)"},
      {R"("tools":[],"tool_choice":"required")", "tool_choice",
       R"("tools":[],"tool_choice":"auto")"},
      {R"("tools":[{}],"parallel_tool_calls":false)", "parallel_tool_calls",
       R"("tools":[],"parallel_tool_calls":false)"},
      {R"("tool_choice":{"type":"function"})", "tool_choice",
       R"("tool_choice":"none")"},
      {R"("function_call":{"name":"f"})", "function_call",
       R"("function_call":"auto")"},
      {R"("response_format":{"type":"json_schema"})", "response_format",
       R"("response_format":{"type":"text"})"},
      {R"("response_format":{"type":"grammar"})", "response_format",
       R"("response_format":null)"},
      {R"("response_format":"json")", "response_format", R"("user":"u")"},
      {R"("structured_outputs":{"grammar":"a"})", "structured_outputs",
       R"("structured_outputs":{"grammar":null})"},
      {R"("guided_grammar":"a")", "guided_grammar", R"("guided_json":null)"},
      {R"("min_tokens":3)", "min_tokens", R"("min_tokens":0)"},
      {R"("bad_words":["a"])", "bad_words", R"("bad_words":[])"},
      {R"("allowed_token_ids":[1])", "allowed_token_ids",
       R"("allowed_token_ids":null)"},
  };
  for (const auto& c : cases) {
    const ApiError error = ErrorOf(ParseChatRequest(Chat(c.refused)));
    EXPECT_EQ(error.http_status, 400);
    EXPECT_EQ(error.param, c.param) << c.refused;
    EXPECT_EQ(ErrorOf(ParseCompletionRequest(Completion(c.refused))).param,
              c.param);
    Parsed(ParseChatRequest(Chat(c.taken)));
  }
}

TEST(OpenAiRequestTest, WrongPromptsAreRefused) {
  for (const char* prompt :
       {"null", R"("")", "7", "{}", "[]", "[-1]", "[1.5]", "[4294967296]",
        R"([1,"a"])", R"(["a",1])", "[[]]", "[[[1]]]", R"(["a",""])",
        R"(["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15",
            "16","17"])"}) {
    const ApiError error = ErrorOf(ParseCompletionRequest(
        absl::StrCat(R"({"model":"m","prompt":)", prompt, "}")));
    EXPECT_EQ(error.http_status, 400) << prompt;
  }
}

TEST(OpenAiRequestTest, WhatIsNotJsonIsRefusedWithoutItsWords) {
  const std::string whole = Completion(R"("stop":["secret","a"],"n":1)");
  for (size_t length = 0; length < whole.size(); ++length) {
    const ApiError error = ErrorOf(
        ParseCompletionRequest(absl::string_view(whole).substr(0, length)));
    EXPECT_EQ(error.http_status, 400);
    EXPECT_THAT(error.message, Not(HasSubstr("secret")));
  }
  for (const char* body :
       {"7", "null", "[]", R"("s")", "{}}", "{\"a\":NaN}", "{\"a\":1e999}",
        "{\"a\":\"\xff\"}", "{\"a\":\"\\ud800\"}", "\x00", "{'a':1}"}) {
    EXPECT_EQ(ErrorOf(ParseChatRequest(body)).http_status, 400) << body;
  }
}

TEST(OpenAiRequestTest, DeepNestingIsRefusedBeforeItCosts) {
  const std::string deep(1 << 20, '[');
  EXPECT_THAT(ErrorOf(ParseChatRequest(deep)).message, HasSubstr("nested"));
  EXPECT_THAT(ErrorOf(ParseChatRequest(R"({"a":)" + deep)).message,
              HasSubstr("nested"));
  // Brackets in a string nest nothing.
  Parsed(ParseCompletionRequest(
      absl::StrCat(R"({"model":"m","prompt":"\")", deep, R"("})")));
}

}  // namespace
}  // namespace onegrid::gateway
