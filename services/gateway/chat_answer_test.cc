#include "services/gateway/chat_answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "services/gateway/call_parser.h"

namespace onegrid::gateway {
namespace {

// The parts of `text`, which comes `step` bytes at a time.
AnswerPart Read(absl::string_view text, size_t step, bool thoughts = true,
                bool calls = true) {
  ChatAnswer answer;
  answer.Expect(thoughts ? 8 : 0, calls ? 8 : 0);
  AnswerPart all;
  const auto add = [&all](const AnswerPart& part) {
    all.text += part.text;
    all.reasoning += part.reasoning;
    all.calls.insert(all.calls.end(), part.calls.begin(), part.calls.end());
  };
  for (size_t i = 0; i < text.size(); i += step) {
    add(answer.Append(text.substr(i, step)));
  }
  add(answer.Finish());
  return all;
}

std::string Summary(const AnswerPart& part) {
  std::string summary = absl::StrCat("[", part.reasoning, "]", part.text);
  for (const AnsweredCall& call : part.calls) {
    absl::StrAppend(&summary, "|", call.name, call.arguments);
  }
  return summary;
}

TEST(ChatAnswerTest, ThoughtsTextAndCallsComeApartHoweverTheyAreCut) {
  const struct {
    const char* text;
    const char* parts;
  } cases[] = {
      {"hello", "[]hello"},
      {"", "[]"},
      {"<|channel>thought\nI\nthink\n<channel|>so", "[I\nthink]so"},
      {"<|channel>thought\n<channel|>so", "[]so"},
      {"<|channel>thought<channel|>so", "[]so"},
      {"a<|channel>x\nb\n\n<channel|>c", "[b\n]ac"},
      {"<|channel>thought\nnot ended\n", "[not ended\n]"},
      {"<|channel>thought", "[]"},
      {"<|channel>no name of a channel is as long as this\nb<channel|>",
       "[no name of a channel is as long as this\nb]"},
      {"<|channel>as long as a name of a channel<channel|>a", "[]a"},
      {"<|tool_call>call:f{}<tool_call|>", "[]|f{}"},
      {"<|channel>thought\nt\n<channel|>x<|tool_call>call:f{a:1}<tool_call|>"
       "<|tool_call>call:g{b:<|\"|>c<|\"|>}<tool_call|>",
       "[t]x|f{\"a\":1}|g{\"b\":\"c\"}"},
      {"1 < 2 <| <|tool <channel|>", "[]1 < 2 <| <|tool <channel|>"},
      {"<|tool_call>call:f{", "[]<|tool_call>call:f{"},
      {"<|tool_call>call:f<tool_call|>b", "[]<|tool_call>call:f<tool_call|>b"},
      {"a<|tool_c", "[]a<|tool_c"}};
  for (const auto& example : cases) {
    for (const size_t step : {1, 2, 3, 7, 1000}) {
      EXPECT_EQ(Summary(Read(example.text, step)), example.parts)
          << example.text << " in " << step;
    }
  }
}

TEST(ChatAnswerTest, TextComesAtOnceUnlessItMayBeginAMark) {
  ChatAnswer answer;
  EXPECT_EQ(answer.Append("a <|").text, "a <|");
  answer.Expect(1, 1);
  EXPECT_EQ(answer.Append("a <|").text, "a ");
  EXPECT_EQ(answer.Append("b").text, "<|b");
  EXPECT_EQ(answer.Append("<|channel>thought\nc\n").reasoning, "c");
  EXPECT_EQ(answer.Append("d").reasoning, "\nd");
}

TEST(ChatAnswerTest, OnlyAsManyMarksAsAreExpectedOpenAnything) {
  constexpr char kCall[] = "<|tool_call>call:f{}<tool_call|>";
  ChatAnswer answer;
  EXPECT_EQ(Summary(answer.Append(kCall)), absl::StrCat("[]", kCall));
  answer.Expect(0, 1);
  EXPECT_EQ(Summary(answer.Append(kCall)), "[]|f{}");
  EXPECT_EQ(Summary(answer.Append(kCall)), absl::StrCat("[]", kCall));
}

TEST(ChatAnswerTest, WhatIsNotAskedForStaysText) {
  const std::string text =
      "<|channel>thought\na<channel|><|tool_call>call:f{}<tool_call|>";
  EXPECT_EQ(Read(text, 3, false, false).text, text);
  EXPECT_EQ(Summary(Read(text, 3, true, false)),
            "[a]<|tool_call>call:f{}<tool_call|>");
}

std::string Parsed(absl::string_view text) {
  std::string name, arguments;
  return ParseCall(text, &name, &arguments) ? name + arguments : "not a call";
}

TEST(CallParserTest, ValuesBecomeJson) {
  EXPECT_EQ(Parsed("call:f{}"), "f{}");
  EXPECT_EQ(Parsed("call:a.b-c{ }"), "a.b-c{}");
  EXPECT_EQ(Parsed("call:f{b:<|\"|>x,}{\"\n<|\"|>,a:-1.5e3,c:true,d:null}"),
            R"(f{"b":"x,}{\"\n","a":-1500.0,"c":true,"d":null})");
  EXPECT_EQ(Parsed("call:f{a:[1,[],{}],b:{c:{d:<|\"|><|\"|>}}, e : x y }"),
            R"(f{"a":[1,[],{}],"b":{"c":{"d":""}},"e":"x y"})");
  EXPECT_EQ(Parsed("call:f{<|\"|>a:b<|\"|>:None,a:1,a:2}"),
            R"(f{"a:b":null,"a":2})");
  // No JSON number: a string.
  EXPECT_EQ(Parsed("call:f{a:1e999,b:01,c:2026-01-02}"),
            R"(f{"a":"1e999","b":"01","c":"2026-01-02"})");
  EXPECT_EQ(Parsed("call:f{a:12345678901234567890}"),
            R"(f{"a":12345678901234567890})");
  EXPECT_EQ(Parsed("call:f{a:123456789012345678901}"),
            R"(f{"a":"123456789012345678901"})");
}

TEST(CallParserTest, WhatIsNoCallIsRefused) {
  for (const char* text :
       {"", "call:", "call:f", "call:{}", "f{}", "call:f{", "call:f}",
        "call:f{a}", "call:f{a:}", "call:f{:1}", "call:f{a:1,}", "call:f{a:1",
        "call:f{a:[1}", "call:f{a:[1,]}", "call:f{a:<|\"|>x}", "call:f{} x",
        "call:f{}}", "call:f{a:1 b:{}}", "call:f{a b}"}) {
    EXPECT_EQ(Parsed(text), "not a call") << text;
  }
}

TEST(CallParserTest, DepthIsBounded) {
  const auto nested = [](int depth) {
    return absl::StrCat("call:f{a:", std::string(depth, '['),
                        std::string(depth, ']'), "}");
  };
  EXPECT_NE(Parsed(nested(60)), "not a call");
  EXPECT_EQ(Parsed(nested(70)), "not a call");
  EXPECT_EQ(Parsed(nested(1000000)), "not a call");
}

TEST(CallParserTest, BytesThatAreNotUtf8BecomeJsonAllTheSame) {
  std::string name, arguments;
  ASSERT_TRUE(ParseCall("call:f{a\xff:\xc3}", &name, &arguments));
  EXPECT_TRUE(nlohmann::json::accept(arguments)) << arguments;
}

}  // namespace
}  // namespace onegrid::gateway
