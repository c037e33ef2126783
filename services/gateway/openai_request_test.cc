#include "services/gateway/openai_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

namespace onegrid::gateway {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A body with `fields` beside those that must be there.
std::string Completion(const std::string& fields) {
  return absl::StrCat(R"({"model":"m","prompt":"p")", fields.empty() ? "" : ",",
                      fields, "}");
}
std::string Chat(const std::string& fields) {
  return absl::StrCat(
      R"({"model":"m","messages":[{"role":"user","content":"u"}])",
      fields.empty() ? "" : ",", fields, "}");
}
std::string ChatOf(const std::string& messages) {
  return absl::StrCat(R"({"model":"m","messages":)", messages, "}");
}

CompletionRequest Parsed(std::variant<CompletionRequest, ApiError> result) {
  if (const auto* error = std::get_if<ApiError>(&result)) {
    ADD_FAILURE() << error->message;
    return {};
  }
  return std::get<CompletionRequest>(std::move(result));
}

ApiError ErrorOf(std::variant<CompletionRequest, ApiError> result) {
  if (std::holds_alternative<CompletionRequest>(result)) {
    ADD_FAILURE() << "was taken";
    return {};
  }
  return std::get<ApiError>(std::move(result));
}

TEST(OpenAiRequestTest, ThinkingIsAnArgumentOfTheTemplate) {
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

TEST(OpenAiRequestTest, MessagesBecomeTurns) {
  const auto request = Parsed(ParseChatRequest(ChatOf(
      R"([{"role":"developer","content":"s"},{"role":"user","content":
          [{"type":"text","text":"a"},{"type":"text","text":"b"}]},
          {"role":"assistant","content":"c"},{"role":"user","content":"d"}])")));
  ASSERT_EQ(request.turns.size(), 4);
  EXPECT_EQ(request.turns[0].role, model::Role::kSystem);
  EXPECT_EQ(request.turns[1].text, "ab");
  EXPECT_EQ(request.turns[2].role, model::Role::kAssistant);
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

// What the answer has to be, by the fields of a request.
v1::Structure StructureOf(const std::string& fields) {
  const auto chat = Parsed(ParseChatRequest(Chat(fields)));
  const auto other = Parsed(ParseCompletionRequest(Completion(fields)));
  EXPECT_TRUE(chat.structure && other.structure) << fields;
  EXPECT_EQ(chat.structure->SerializeAsString(),
            other.structure->SerializeAsString());
  return *chat.structure;
}

TEST(OpenAiRequestTest, StructuresKeepTheOrderOfTheirProperties) {
  const std::string schema = R"({"properties":{"b":{},"a":{"z":1,"y":2}}})";
  for (const std::string& fields :
       {R"("response_format":{"type":"json_schema","json_schema":{"name":"n",)"
        R"("strict":true,"schema":)" +
            schema + "}}",
        R"("guided_json":)" + schema,
        R"("structured_outputs":{"json":)" + schema + "}"}) {
    EXPECT_EQ(StructureOf(fields).json_schema(), schema);
  }
}

TEST(OpenAiRequestTest, StructuresOfEachKind) {
  EXPECT_FALSE(Parsed(ParseChatRequest(Chat(""))).structure);
  EXPECT_FALSE(
      Parsed(ParseChatRequest(Chat(R"("response_format":{"type":"text"})")))
          .structure);
  EXPECT_TRUE(
      StructureOf(R"("response_format":{"type":"json_object"})").json_object());
  EXPECT_EQ(StructureOf(R"("guided_json":"{}")").json_schema(), "{}");
  EXPECT_EQ(StructureOf(R"("guided_regex":"a+")").regex(), "a+");
  EXPECT_EQ(StructureOf(R"("structured_outputs":{"regex":"a"})").regex(), "a");
  const v1::Structure choices = StructureOf(R"("guided_choice":["a","b"])");
  ASSERT_EQ(choices.choices().texts_size(), 2);
  EXPECT_EQ(choices.choices().texts(1), "b");
  EXPECT_EQ(StructureOf(R"("structured_outputs":{"choice":[]})").kind_case(),
            v1::Structure::kChoices);
}

TEST(OpenAiRequestTest, StructuresThatCannotBeReadNameTheirField) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("response_format":{})", "response_format"},
      {R"("response_format":{"type":"json_schema","json_schema":{}})",
       "response_format"},
      {R"("guided_regex":1)", "guided_regex"},
      {R"("guided_choice":"a")", "guided_choice"},
      {R"("guided_choice":[1])", "guided_choice"},
      {R"("structured_outputs":[])", "structured_outputs"},
      {R"("structured_outputs":{"json":{},"regex":"a"})", "structured_outputs"},
      {R"("response_format":{"type":"json_object"},"guided_regex":"a")",
       "guided_regex"},
  };
  for (const auto& [fields, param] : cases) {
    EXPECT_EQ(ErrorOf(ParseChatRequest(Chat(fields))).param, param) << fields;
  }
}

TEST(OpenAiRequestTest, StructuresGoWithoutThoughtsAndTools) {
  const std::string structure = R"("response_format":{"type":"json_object"},)";
  EXPECT_EQ(ErrorOf(ParseChatRequest(Chat(
                        structure +
                        R"("chat_template_kwargs":{"enable_thinking":true})")))
                .param,
            "chat_template_kwargs");
  const std::string tools =
      R"("tools":[{"type":"function","function":{"name":"f"}}])";
  EXPECT_EQ(ErrorOf(ParseChatRequest(Chat(structure + tools))).param, "tools");
  EXPECT_TRUE(Parsed(ParseChatRequest(
                         Chat(structure + R"("tool_choice":"none",)" + tools)))
                  .structure);
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

TEST(OpenAiRequestTest, ToolsCallsAndResultsHaveALimit) {
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

TEST(OpenAiRequestTest, ObjectsOfManyMembersAreNotReadInOrder) {
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

TEST(OpenAiRequestTest, CallsAndResultsAreTurns) {
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

TEST(OpenAiRequestTest, WrongCallsAreRefusedByPlace) {
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

TEST(OpenAiRequestTest, ToolsAreTheirFunctions) {
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

TEST(OpenAiRequestTest, WrongMessagesAreRefusedByPlace) {
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
