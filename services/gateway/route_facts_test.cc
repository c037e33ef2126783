#include "services/gateway/route_facts.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace onegrid::gateway {
namespace {

using nlohmann::json;

RouteFacts Facts(const std::string& body, bool chat = true,
                 const std::string& task = "") {
  const auto facts = ReadRouteFacts(body, chat, "", task, false);
  EXPECT_TRUE(facts.has_value()) << body;
  return facts.value_or(RouteFacts());
}

bool IsPrivate(const std::string& header, const std::string& body,
               bool by_default) {
  const auto facts = ReadRouteFacts(body, true, header, "", by_default);
  return !facts.has_value() || facts->is_private;
}

TEST(RouteFactsTest, ChatIsReadWhole) {
  const RouteFacts facts = Facts(R"({
      "model": "m", "stream": true, "max_tokens": 5, "n": 2,
      "max_completion_tokens": 7, "tools": [{}],
      "response_format": {"type": "json_object"}, "metadata": {"task": "t"},
      "messages": [{"role": "system", "content": "é"},
                   {"role": "user", "content": [
                       {"type": "text", "text": "ab"},
                       {"type": "image_url", "image_url": {"url": "x"}}]},
                   {"role": "assistant", "content": null}]})");
  EXPECT_EQ(facts.model, "m");
  EXPECT_EQ(facts.task, "t");
  EXPECT_TRUE(facts.stream);
  EXPECT_EQ(facts.max_tokens, 7);
  EXPECT_EQ(facts.n, 2);
  EXPECT_TRUE(facts.has_tools);
  EXPECT_TRUE(facts.has_response_format);
  EXPECT_EQ(facts.text, "é\nab");
  EXPECT_EQ(facts.characters, 4);
}

TEST(RouteFactsTest, CompletionsHaveTheirDefaults) {
  const RouteFacts facts = Facts(R"({"prompt": ["a", "b"]})", false);
  EXPECT_EQ(facts.max_tokens, 16);
  EXPECT_EQ(facts.text, "a\nb");
  EXPECT_FALSE(facts.has_token_ids);
  EXPECT_TRUE(Facts(R"({"prompt": [1, 2]})", false).has_token_ids);
  EXPECT_TRUE(Facts(R"({"prompt": ["a", [1]]})", false).has_token_ids);
  EXPECT_EQ(Facts("{}").max_tokens, RouteFacts::kNoLimit);
}

TEST(RouteFactsTest, TheHeadersTaskGoesFirst) {
  EXPECT_EQ(Facts(R"({"metadata": {"task": "t"}})", true, " h ").task, "h");
}

TEST(RouteFactsTest, ValuesOfWrongTypesAreLeftOut) {
  const RouteFacts facts = Facts(
      R"({"model": 1, "max_tokens": "5", "tools": {}, "stream": "yes",
          "n": 1.5, "messages": [1, {"content": 2}, {"content": [3]}],
          "metadata": {"task": []}})");
  EXPECT_EQ(facts.model, "");
  EXPECT_EQ(facts.task, "");
  EXPECT_EQ(facts.max_tokens, RouteFacts::kNoLimit);
  EXPECT_FALSE(facts.stream);
  EXPECT_FALSE(facts.has_tools);
  EXPECT_EQ(facts.n, 1);
  EXPECT_EQ(facts.text, "");
  EXPECT_EQ(Facts(R"({"max_tokens": 99999999999999999999})").max_tokens,
            RouteFacts::kNoLimit);
}

TEST(RouteFactsTest, WhatIsNotAnObjectHasNoFacts) {
  for (const std::string& body :
       {std::string(), std::string("[]"), std::string("{"),
        std::string("{\"a\": \"\xff\"}"), std::string(100000, '['),
        std::string("{\"a\":") + std::string(100000, '{')}) {
    EXPECT_FALSE(ReadRouteFacts(body, true, "public", "", false).has_value());
  }
}

TEST(RouteFactsTest, PrivateUnlessAllThatIsSaidIsPublic) {
  const std::string none = "{}", open = R"({"metadata":{"privacy":"public"}})",
                    closed = R"({"metadata":{"privacy":"private"}})";
  EXPECT_FALSE(IsPrivate("", none, false));
  EXPECT_TRUE(IsPrivate("", none, true));
  EXPECT_FALSE(IsPrivate("Public ", none, true));
  EXPECT_FALSE(IsPrivate("", open, true));
  EXPECT_TRUE(IsPrivate("private", open, false));
  EXPECT_TRUE(IsPrivate("public", closed, false));
  EXPECT_TRUE(IsPrivate("", closed, false));
  // What was meant is anybody's guess.
  for (const char* header : {"PRIVATE", "privat", " ", ",", "public,private",
                             "public,", "true", "\"public\""}) {
    EXPECT_TRUE(IsPrivate(header, open, false)) << header;
  }
  for (const char* body :
       {R"({"metadata":{"privacy":""}})", R"({"metadata":{"privacy":true}})",
        R"({"metadata":{"privacy":null}})", R"({"metadata":"public"})",
        R"({"metadata":{"privacy":["public"]}})"}) {
    EXPECT_TRUE(IsPrivate("public", body, false)) << body;
  }
}

TEST(RouteFactsTest, ABodyThatSaysSomethingTwiceIsPrivate) {
  for (const char* body :
       {R"({"metadata":{"privacy":"private"},"metadata":{}})",
        R"({"metadata":{"privacy":"private","privacy":"public"}})",
        R"({"metadata":{"privacy":"private"},"m\u0065tadata":{}})"}) {
    EXPECT_TRUE(IsPrivate("public", body, false)) << body;
  }
}

TEST(WithModelTest, NothingElseChanges) {
  EXPECT_EQ(
      WithModel("{ \"a\": 1.50, \"model\" :\"x\\\"y\", \"b\": {\"model\": "
                "\"in\"}, \"c\": [\"model\", 1e2] }\n",
                "new \"one\""),
      "{ \"a\": 1.50, \"model\" :\"new \\\"one\\\"\", \"b\": {\"model\": "
      "\"in\"}, \"c\": [\"model\", 1e2] }\n");
}

TEST(WithModelTest, TextIsNotTakenForKeys) {
  const std::string body =
      R"({"p":"\\\"model\":\"x\"{","model":"a","q":"}","r":"\\"})";
  const json changed = json::parse(WithModel(body, "b"));
  json expected = json::parse(body);
  expected["model"] = "b";
  EXPECT_EQ(changed, expected);
}

TEST(WithModelTest, EachSpellingOfTheKeyIsReplaced) {
  EXPECT_EQ(WithModel(R"({"mod\u0065l":"a","model":"b"})", "c"),
            R"({"mod\u0065l":"c","model":"c"})");
}

}  // namespace
}  // namespace onegrid::gateway
