// Goal: conversations, tools and calls are read as the API means them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "services/gateway/openai_request.h"
#include "services/gateway/openai_request_testing.h"

namespace onegrid::gateway {
namespace {

TEST(OpenAiMessagesTest, ThinkingIsAnArgumentOfTheTemplate) {
  const auto with = [](const std::string& value) {
    return ParseChatRequest(Chat(R"("chat_template_kwargs":)" + value));
  };
  EXPECT_FALSE(Parsed(ParseChatRequest(Chat(""))).enable_thinking);
  EXPECT_FALSE(Parsed(with("null")).enable_thinking);
  EXPECT_FALSE(Parsed(with("{}")).enable_thinking);
  EXPECT_FALSE(Parsed(with(R"({"enable_thinking":false})")).enable_thinking);
  EXPECT_TRUE(Parsed(with(R"({"enable_thinking":true})")).enable_thinking);
  for (const char* wrong : {"[]", "true", R"({"enable_thinking":1})",
                            R"({"enable_thinking":"yes"})"}) {
    EXPECT_EQ(ErrorOf(with(wrong)).param, "chat_template_kwargs") << wrong;
  }
  EXPECT_EQ(ErrorOf(with(R"({"tools_in_user":true})")).code,
            "unsupported_parameter");
}

TEST(OpenAiMessagesTest, MessagesBecomeTurns) {
  const auto request = Parsed(ParseChatRequest(ChatOf(
      R"([{"role":"developer","content":"s"},{"role":"user","content":
          [{"type":"text","text":"a"},{"type":"text","text":"b"}]},
          {"role":"assistant","content":"c"},{"role":"user","content":"d"}])")));
  ASSERT_EQ(request.turns.size(), 4);
  EXPECT_EQ(request.turns[0].role, model::Role::kSystem);
  EXPECT_EQ(request.turns[1].text, "ab");
  EXPECT_EQ(request.turns[2].role, model::Role::kAssistant);
}

// A conversation whose assistant turn has these fields, and the turn of a tool.
std::string ChatOfCalls(const std::string& fields,
                        const std::string& id = "c1") {
  return ChatOf(absl::StrCat(
      R"([{"role":"user","content":"u"},{"role":"assistant",)", fields,
      R"(},{"role":"tool","content":"r","tool_call_id":")", id, R"("}])"));
}

std::string Repeated(const std::string& item, size_t count) {
  return absl::StrJoin(std::vector<std::string>(count, item), ",");
}

TEST(OpenAiMessagesTest, ToolsCallsAndResultsHaveALimit) {
  const std::string tool = R"({"type":"function","function":{"name":"f"}})";
  const auto tools = [&](size_t count) {
    return Chat(absl::StrCat("\"tools\":[", Repeated(tool, count), "]"));
  };
  EXPECT_EQ(Parsed(ParseChatRequest(tools(kMaxTools))).tools.size(), kMaxTools);
  EXPECT_EQ(ErrorOf(ParseChatRequest(tools(kMaxTools + 1))).param, "tools");
  const std::string call = R"({"id":"c1","function":{"name":"f"}})";
  EXPECT_EQ(
      ErrorOf(ParseChatRequest(ChatOfCalls(absl::StrCat(
                  "\"tool_calls\":[", Repeated(call, kMaxTools + 1), "]"))))
          .param,
      "messages[1].tool_calls");
  const std::string result = R"({"role":"tool","content":"r","name":"f"})";
  const auto results = [&](size_t count) {
    return ChatOf(absl::StrCat(
        R"([{"role":"user","content":"u"},{"role":"assistant","tool_calls":[)",
        call, "]},", Repeated(result, count), "]"));
  };
  EXPECT_EQ(Parsed(ParseChatRequest(results(kMaxTools))).turns.size(),
            kMaxTools + 2);
  EXPECT_EQ(ErrorOf(ParseChatRequest(results(kMaxTools + 1))).param,
            "messages");
}

TEST(OpenAiMessagesTest, ObjectsOfManyMembersAreNotReadInOrder) {
  std::string members;
  for (int i = 0; i < 200'000; ++i) {
    absl::StrAppend(&members, i == 0 ? "" : ",", "\"k", i, "\":0");
  }
  const std::string tool = R"("tools":[{"type":"function",
      "function":{"name":"f"}}],"metadata":{)";
  EXPECT_EQ(
      ErrorOf(ParseChatRequest(Chat(absl::StrCat(tool, members, "}")))).param,
      "tools");
  const std::string arguments =
      absl::StrReplaceAll(absl::StrCat("{", members, "}"), {{"\"", "\\\""}});
  EXPECT_EQ(ErrorOf(ParseChatRequest(ChatOfCalls(absl::StrCat(
                        R"("tool_calls":[{"id":"c1","function":{"name":"f",)",
                        "\"arguments\":\"", arguments, "\"}}]"))))
                .param,
            "messages[1].tool_calls[0].function.arguments");
}

TEST(OpenAiMessagesTest, CallsAndResultsAreTurns) {
  const auto request = Parsed(ParseChatRequest(ChatOfCalls(
      R"("content":null,"reasoning_content":"t","tool_calls":[
         {"id":"c0","type":"function","function":{"name":"g"}},
         {"id":"c1","type":"function","function":
          {"name":"f","arguments":"{\"b\": 1, \"a\": 2}"}}])")));
  ASSERT_EQ(request.turns.size(), 3);
  const model::Turn& call = request.turns[1];
  EXPECT_EQ(call.text, "");
  EXPECT_EQ(call.reasoning, "t");
  ASSERT_EQ(call.calls.size(), 2);
  EXPECT_EQ(call.calls[0].arguments, "{}");
  EXPECT_EQ(call.calls[1].name, "f");
  EXPECT_EQ(call.calls[1].arguments, R"({"b": 1, "a": 2})");
  EXPECT_EQ(request.turns[2].role, model::Role::kTool);
  EXPECT_EQ(request.turns[2].tool_name, "f");
  EXPECT_EQ(request.turns[2].text, "r");
}

TEST(OpenAiMessagesTest, WrongCallsAreRefusedByPlace) {
  const auto call = [](const std::string& function) {
    return absl::StrCat(R"("content":"b","tool_calls":[{"id":"c1","function":)",
                        function, "}]");
  };
  const struct {
    std::string fields;
    const char* param;
  } cases[] = {
      {R"("content":null)", "messages[1].content"},
      {R"("content":"b","tool_calls":{})", "messages[1].tool_calls"},
      {R"("content":"b","tool_calls":[{}])", "messages[1].tool_calls[0]"},
      {R"("content":"b","tool_calls":[7])", "messages[1].tool_calls[0]"},
      {R"("content":"b","tool_calls":[{"type":"custom","function":{}}])",
       "messages[1].tool_calls[0]"},
      {call("[]"), "messages[1].tool_calls[0]"},
      {call("{}"), "messages[1].tool_calls[0].function.name"},
      {call(R"({"name":"f","arguments":"[]"})"),
       "messages[1].tool_calls[0].function.arguments"},
      {call(R"({"name":"f","arguments":"{"})"),
       "messages[1].tool_calls[0].function.arguments"},
      {call(R"({"name":"f","arguments":{}})"),
       "messages[1].tool_calls[0].function.arguments"},
      {R"("content":"b","reasoning":7)", "messages[1].reasoning"},
  };
  for (const auto& c : cases) {
    const ApiError error = ErrorOf(ParseChatRequest(ChatOfCalls(c.fields)));
    EXPECT_EQ(error.param, c.param) << c.fields << ": " << error.message;
    EXPECT_EQ(error.http_status, 400);
  }
  EXPECT_EQ(
      ErrorOf(ParseChatRequest(ChatOfCalls(call(R"({"name":"f"})"), "other")))
          .param,
      "messages[2].tool_call_id");
}

TEST(OpenAiMessagesTest, ToolsAreTheirFunctions) {
  constexpr char kTools[] =
      R"("tools":[{"type":"function","function":{"name":"f","parameters":
         {"type":"object","properties":{"b":{},"A":{},"a":{}}}}}])";
  const auto request = Parsed(ParseChatRequest(Chat(kTools)));
  ASSERT_EQ(request.tools.size(), 1);
  EXPECT_EQ(request.tools[0], R"({"name":"f","parameters":{"type":"object",)"
                              R"("properties":{"b":{},"A":{},"a":{}}}})");
  EXPECT_TRUE(Parsed(ParseChatRequest(Chat(
                         absl::StrCat(kTools, R"(,"tool_choice":"none")"))))
                  .tools.empty());
  EXPECT_EQ(Parsed(ParseChatRequest(
                       Chat(absl::StrCat(kTools, R"(,"tool_choice":"auto")"))))
                .tools.size(),
            1);
  const struct {
    const char* tools;
    const char* param;
  } cases[] = {
      {"{}", "tools"},
      {"[{}]", "tools[0]"},
      {"[7]", "tools[0]"},
      {R"([{"type":"custom","function":{"name":"f"}}])", "tools[0]"},
      {R"([{"type":"function"}])", "tools[0]"},
      {R"([{"type":"function","function":{}}])", "tools[0]"},
      {R"([{"type":"function","function":{"name":"f"}},
           {"type":"function","function":{"name":"f","parameters":7}}])",
       "tools[1]"},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(
        ErrorOf(ParseChatRequest(Chat(absl::StrCat(R"("tools":)", c.tools))))
            .param,
        c.param)
        << c.tools;
  }
}

TEST(OpenAiMessagesTest, WrongMessagesAreRefusedByPlace) {
  const struct {
    const char* messages;
    const char* param;
  } cases[] = {
      {"[]", "messages"},
      {"null", "messages"},
      {R"("hi")", "messages"},
      {R"([7])", "messages[0]"},
      {R"([{"content":"a"}])", "messages[0]"},
      {R"([{"role":7,"content":"a"}])", "messages[0]"},
      {R"([{"role":"user"}])", "messages[0].content"},
      {R"([{"role":"user","content":null}])", "messages[0].content"},
      {R"([{"role":"user","content":7}])", "messages[0].content"},
      {R"([{"role":"user","content":["a"]}])", "messages[0].content[0]"},
      {R"([{"role":"user","content":[{"type":"text"}]}])",
       "messages[0].content[0]"},
      {R"([{"role":"user","content":[{"type":"text","text":"a"},
            {"type":"image_url","image_url":{"url":"x"}}]}])",
       "messages[0].content[1]"},
      {R"([{"role":"function","content":"a"}])", "messages[0].role"},
      {R"([{"role":"tool","content":"a"}])", "messages[0].tool_call_id"},
      {R"([{"role":"tool","name":"f","content":"a"}])", "messages"},
      {R"([{"role":"user","content":"a","tool_calls":[{}]}])",
       "messages[0].tool_calls"},
      {R"([{"role":"assistant","content":"a"}])", "messages"},
      {R"([{"role":"system","content":"a"}])", "messages"},
      {R"([{"role":"user","content":"a"},{"role":"user","content":"b"}])",
       "messages"},
      {R"([{"role":"user","content":"a"},{"role":"assistant","content":"b"}])",
       "messages"},
  };
  for (const auto& c : cases) {
    const ApiError error = ErrorOf(ParseChatRequest(ChatOf(c.messages)));
    EXPECT_EQ(error.param, c.param) << c.messages << ": " << error.message;
    EXPECT_EQ(error.http_status, 400);
  }
}

}  // namespace
}  // namespace onegrid::gateway
