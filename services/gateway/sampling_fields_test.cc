// Goal: what a client may say of how tokens are chosen and shown, and of its
// place beside others, reaches the request or is refused by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <variant>

#include "absl/strings/str_cat.h"
#include "services/gateway/openai_request.h"

namespace onegrid::gateway {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

using Result = std::variant<CompletionRequest, ApiError>;

Result Completion(const std::string& fields) {
  return ParseCompletionRequest(
      absl::StrCat(R"({"model":"m","prompt":"p",)", fields, "}"));
}
Result Chat(const std::string& fields) {
  return ParseChatRequest(absl::StrCat(
      R"({"model":"m","messages":[{"role":"user","content":"u"}],)", fields,
      "}"));
}

CompletionRequest Parsed(const Result& result) {
  if (const auto* error = std::get_if<ApiError>(&result)) {
    ADD_FAILURE() << error->message;
    return {};
  }
  return std::get<CompletionRequest>(result);
}

ApiError ErrorOf(const Result& result) {
  if (std::holds_alternative<CompletionRequest>(result)) {
    ADD_FAILURE() << "was taken";
    return {};
  }
  return std::get<ApiError>(result);
}

TEST(SamplingFieldsTest, PenaltiesAndBiasAreRead) {
  for (const auto& result :
       {Completion(R"("presence_penalty":-2,"frequency_penalty":1.5,
                      "logit_bias":{"5":-100,"0":0.5,"262143":100})"),
        Chat(R"("presence_penalty":-2,"frequency_penalty":1.5,
                "logit_bias":{"5":-100,"0":0.5,"262143":100})")}) {
    const v1::Sampling sampling = Parsed(result).sampling;
    EXPECT_EQ(sampling.presence_penalty(), -2);
    EXPECT_EQ(sampling.frequency_penalty(), 1.5);
    EXPECT_THAT(
        sampling.logit_bias(),
        UnorderedElementsAre(Pair(5, -100), Pair(0, 0.5), Pair(262143, 100)));
  }
  const v1::Sampling defaults = Parsed(Chat(R"("logit_bias":{})")).sampling;
  EXPECT_EQ(defaults.presence_penalty(), 0);
  EXPECT_EQ(defaults.frequency_penalty(), 0);
  EXPECT_TRUE(defaults.logit_bias().empty());
}

TEST(SamplingFieldsTest, LogprobsOfChatAndOfCompletions) {
  EXPECT_FALSE(Parsed(Chat(R"("logprobs":false)")).logprobs);
  EXPECT_TRUE(Parsed(Chat(R"("logprobs":true)")).logprobs);
  EXPECT_EQ(Parsed(Chat(R"("logprobs":true,"top_logprobs":20)")).top_logprobs,
            20);
  EXPECT_FALSE(Parsed(Completion(R"("logprobs":null)")).logprobs);
  EXPECT_TRUE(Parsed(Completion(R"("logprobs":0)")).logprobs);
  EXPECT_EQ(Parsed(Completion(R"("logprobs":5)")).top_logprobs, 5);
  EXPECT_EQ(ErrorOf(Completion(R"("logprobs":6)")).param, "logprobs");
  EXPECT_EQ(ErrorOf(Completion(R"("logprobs":true)")).param, "logprobs");
  EXPECT_EQ(ErrorOf(Chat(R"("logprobs":1)")).param, "logprobs");
  EXPECT_EQ(ErrorOf(Chat(R"("top_logprobs":2)")).param, "top_logprobs");
  for (const char* wrong : {"21", "-1", "1.5", "\"1\"", "true", "1e308"}) {
    EXPECT_EQ(
        ErrorOf(Chat(absl::StrCat(R"("logprobs":true,"top_logprobs":)", wrong)))
            .param,
        "top_logprobs")
        << wrong;
  }
}

TEST(SamplingFieldsTest, EchoIsForCompletionsAndMayAskForNoMore) {
  EXPECT_TRUE(Parsed(Completion(R"("echo":true)")).echo);
  EXPECT_EQ(
      Parsed(Completion(R"("echo":true,"max_tokens":0)")).stopping.max_tokens(),
      0);
  EXPECT_EQ(ErrorOf(Completion(R"("echo":false,"max_tokens":0)")).param,
            "max_tokens");
  EXPECT_EQ(ErrorOf(Completion(R"("echo":1)")).param, "echo");
  EXPECT_FALSE(Parsed(Chat(R"("echo":false)")).echo);
  EXPECT_EQ(ErrorOf(Chat(R"("echo":true)")).code, "unsupported_parameter");
}

TEST(SamplingFieldsTest, PriorityHasTheOtherSignBehindTheGateway) {
  EXPECT_EQ(Parsed(Chat(R"("priority":-3)")).priority, 3);
  EXPECT_EQ(Parsed(Completion(R"("priority":100)")).priority, -100);
  EXPECT_EQ(Parsed(Completion(R"("priority":null)")).priority, 0);
}

TEST(SamplingFieldsTest, CallersAndSaltsAreNames) {
  const auto request = Parsed(Chat(R"("user":"u","cache_salt":"s")"));
  EXPECT_EQ(request.caller, "u");
  EXPECT_EQ(request.cache_salt, "s");
  EXPECT_EQ(Parsed(Chat(R"("safety_identifier":"i","user":"u")")).caller, "i");
  EXPECT_EQ(Parsed(Chat(R"("n":1)")).caller, "");
  const std::string most(kMaxCallerBytes, 'a');
  EXPECT_EQ(Parsed(Chat(absl::StrCat(R"("user":")", most, "\""))).caller, most);
  for (const char* name : {"user", "safety_identifier", "cache_salt"}) {
    const auto with = [&](const std::string& value) {
      return ErrorOf(Completion(absl::StrCat("\"", name, "\":", value))).param;
    };
    EXPECT_EQ(with(absl::StrCat("\"", most, "a\"")), name);
    EXPECT_EQ(with("7"), name);
    EXPECT_EQ(with("[]"), name);
  }
}

TEST(SamplingFieldsTest, StopTokensAreIds) {
  EXPECT_THAT(
      Parsed(Chat(R"("stop_token_ids":[1,262143])")).stopping.stop_token_ids(),
      ElementsAre(1, 262143));
  std::string many = "0";
  for (size_t i = 0; i < kMaxStopTokens; ++i) many += ",0";
  for (const std::string& wrong :
       {std::string("7"), std::string("[-1]"), std::string("[1.5]"),
        std::string("[\"1\"]"), std::string("[2147483648]"),
        absl::StrCat("[", many, "]")}) {
    EXPECT_EQ(ErrorOf(Chat(absl::StrCat(R"("stop_token_ids":)", wrong))).param,
              "stop_token_ids");
  }
}

TEST(SamplingFieldsTest, WrongNumbersAreRefusedByName) {
  for (const char* name : {"presence_penalty", "frequency_penalty"}) {
    for (const char* wrong : {"-2.01", "2.01", "1e308", "-1e308", "\"1\"",
                              "true", "[]", "{}", "99999999999999999999"}) {
      const ApiError error =
          ErrorOf(Chat(absl::StrCat("\"", name, "\":", wrong)));
      EXPECT_EQ(error.http_status, 400);
      EXPECT_EQ(error.param, name) << wrong;
    }
  }
  for (const char* wrong :
       {"-101", "101", "1.5", "1e308", "\"1\"", "9223372036854775808"}) {
    EXPECT_EQ(ErrorOf(Chat(absl::StrCat("\"priority\":", wrong))).param,
              "priority")
        << wrong;
  }
  // No JSON at all, so that none of it has a name.
  for (const char* wrong : {"NaN", "Infinity", "-Infinity", "1e999"}) {
    EXPECT_EQ(
        ErrorOf(Chat(absl::StrCat(R"("presence_penalty":)", wrong))).param, "");
  }
}

TEST(SamplingFieldsTest, WrongBiasesAreRefusedByNameAndEntry) {
  const struct {
    const char* bias;
    const char* message;
  } cases[] = {
      {"7", "is a number, expected an object"},
      {R"([["5",1]])", "is a array"},
      {R"({"a":1})", "has the key \"a\""},
      {R"({"":1})", "has the key \"\""},
      {R"({"-1":1})", "has the key \"-1\""},
      {R"({"+5":1})", "has the key"},
      {R"({"05":1})", "has the key"},
      {R"({"5 ":1})", "has the key"},
      {R"({"1.0":1})", "has the key"},
      {R"({"2147483648":1})", "has the key \"2147483648\""},
      {R"({"5":"1"})", "of 5 is a string, expected a number"},
      {R"({"5":null})", "of 5 is a null"},
      {R"({"5":100.5})", "of 5 is 100.5, expected -100..100"},
      {R"({"5":-1e308})", "of 5 is -1e+308, expected"},
      {R"({"5":99999999999999999999})", "of 5 is"},
  };
  for (const auto& c : cases) {
    const ApiError error =
        ErrorOf(Chat(absl::StrCat(R"("logit_bias":)", c.bias)));
    EXPECT_EQ(error.http_status, 400);
    EXPECT_EQ(error.param, "logit_bias") << c.bias;
    EXPECT_THAT(error.message, HasSubstr(c.message)) << c.bias;
  }
}

TEST(SamplingFieldsTest, ABiasOfManyTokensIsRefusedByItsSize) {
  std::string bias;
  for (int i = 0; i < 100'000; ++i) {
    absl::StrAppend(&bias, i == 0 ? "" : ",", "\"", i, "\":1");
  }
  EXPECT_EQ(
      ErrorOf(Completion(absl::StrCat(R"("logit_bias":{)", bias, "}"))).message,
      "logit_bias has 100000 entries, expected at most 1024");
}

}  // namespace
}  // namespace onegrid::gateway
