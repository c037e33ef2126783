// Goal: what an answer has to be is read in every spelling.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "services/gateway/openai_request.h"
#include "services/gateway/openai_request_testing.h"

namespace onegrid::gateway {
namespace {

// What the answer has to be, by the fields of a request.
v1::Structure StructureOf(const std::string& fields) {
  const auto chat = Parsed(ParseChatRequest(Chat(fields)));
  const auto other = Parsed(ParseCompletionRequest(Completion(fields)));
  EXPECT_TRUE(chat.structure && other.structure) << fields;
  EXPECT_EQ(chat.structure->SerializeAsString(),
            other.structure->SerializeAsString());
  return *chat.structure;
}

TEST(StructureFieldsTest, StructuresKeepTheOrderOfTheirProperties) {
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

TEST(StructureFieldsTest, StructuresOfEachKind) {
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

TEST(StructureFieldsTest, StructuresThatCannotBeReadNameTheirField) {
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

TEST(StructureFieldsTest, StructuresGoWithoutThoughtsAndTools) {
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

}  // namespace
}  // namespace onegrid::gateway
