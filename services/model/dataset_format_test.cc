#include "services/model/dataset_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "services/common/error_info.h"
#include "services/model/gguf_test_file.h"

namespace onegrid::model {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;

constexpr char kPair[] = "{\"prompt\":\"p\",\"completion\":\"c\"}\n";
constexpr char kChat[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},"
    "{\"role\":\"assistant\",\"content\":\"a\"}]}\n";

absl::StatusOr<RecordFile> Read(const std::string& text,
                                const ReadOptions& options = {}) {
  return ReadRecords(WriteTestFile("data.jsonl", text), options);
}

// The problem of a file's first bad line, behind one good line.
std::string Problem(const std::string& good, const std::string& bad) {
  const absl::Status status = Read(good + bad).status();
  EXPECT_EQ(common::ErrorReason(status), "DATASET_SCHEMA_INVALID") << status;
  const auto metadata = common::ErrorMetadata(status);
  EXPECT_EQ(metadata.at("line"), "2");
  EXPECT_THAT(std::string(status.message()), HasSubstr("data.jsonl: line 2: "));
  return metadata.at("problem");
}

// The turns of the only record of a file.
std::vector<Turn> Turns(const std::string& text) {
  const auto file = Read(text);
  EXPECT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->records.size(), 1u);
  EXPECT_EQ(file->records[0].kind, Record::Kind::kChat);
  return file->records[0].turns;
}

TEST(DatasetFormatTest, TheFirstRecordSaysTheFormat) {
  const std::pair<std::string, DataFormat> cases[] = {
      {kPair, DataFormat::kPromptCompletion},
      {kChat, DataFormat::kMessages},
      {R"({"text":"t"})", DataFormat::kText},
      {R"({"instruction":"i","output":"o"})", DataFormat::kAlpaca},
      {R"({"conversations":[{"from":"human","value":"q"},)"
       R"({"from":"gpt","value":"a"}]})",
       DataFormat::kShareGpt},
      // Several fit: what is whole goes before what is plain.
      {R"({"prompt":"p","completion":"c","text":"t"})",
       DataFormat::kPromptCompletion},
      {R"({"prompt":"p","text":"t"})", DataFormat::kText},
  };
  for (const auto& [text, format] : cases) {
    const auto file = Read(text);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(file->format, format) << text;
    EXPECT_EQ(*FormatByName(FormatName(format)), format);
  }
  EXPECT_EQ(Read(" \n")->format, std::nullopt);
  EXPECT_EQ(common::ErrorReason(FormatByName("chatml").status()),
            "UNKNOWN_DATA_FORMAT");
}

TEST(DatasetFormatTest, ARecordOfAnotherFormatIsNamedByItsLine) {
  EXPECT_EQ(Problem(kPair, kChat),
            "no \"prompt\": the line has the format messages, the file "
            "prompt_completion");
  EXPECT_EQ(Problem(kChat, R"({"other":1})"), "no \"messages\"");
  ReadOptions drop;
  drop.drop_invalid = true;  // Drops no line of another format.
  EXPECT_FALSE(Read(std::string(kPair) + kChat, drop).ok());
  ReadOptions text;
  text.format = DataFormat::kText;
  EXPECT_FALSE(Read(kPair, text).ok());
  EXPECT_THAT(std::string(Read("{}").status().message()),
              HasSubstr("no known format"));
}

TEST(DatasetFormatTest, ChatsOfEveryFormatAreTurns) {
  const auto is = [](Role role, const char* text, bool learn) {
    return AllOf(Field(&Turn::role, role), Field(&Turn::text, text),
                 Field(&Turn::learn, learn));
  };
  EXPECT_THAT(
      Turns(R"({"messages":[{"role":"system","content":"s"},)"
            R"({"role":"user","content":"q"},)"
            R"({"role":"assistant","content":"a"}]})"),
      ElementsAre(is(Role::kSystem, "s", true), is(Role::kUser, "q", true),
                  is(Role::kAssistant, "a", true)));
  EXPECT_THAT(
      Turns(R"({"prompt":[{"role":"user","content":"q"},)"
            R"({"role":"assistant","content":"a"},)"
            R"({"role":"user","content":"r"}],)"
            R"("completion":[{"role":"assistant","content":"b"}]})"),
      ElementsAre(is(Role::kUser, "q", false), is(Role::kAssistant, "a", false),
                  is(Role::kUser, "r", false),
                  is(Role::kAssistant, "b", true)));
  EXPECT_THAT(
      Turns(R"({"instruction":"i","input":"x","output":"o","system":"s",)"
            R"("history":[["q","a"]]})"),
      ElementsAre(is(Role::kSystem, "s", true), is(Role::kUser, "q", true),
                  is(Role::kAssistant, "a", true),
                  is(Role::kUser, "i\nx", true),
                  is(Role::kAssistant, "o", true)));
  EXPECT_THAT(
      Turns(R"({"system":"s","conversations":[{"from":"human","value":"q"},)"
            R"({"from":"gpt","value":"a"}]})"),
      ElementsAre(is(Role::kSystem, "s", true), is(Role::kUser, "q", true),
                  is(Role::kAssistant, "a", true)));
}

TEST(DatasetFormatTest, ConversationsThatCannotBeLearnedAreRefusedOrDropped) {
  const auto chat = [](const std::string& roles) {
    std::string list;
    for (const char role : roles) {
      list += list.empty() ? "" : ",";
      list += std::string("{\"from\":\"") +
              (role == 'u'   ? "human"
               : role == 'a' ? "gpt"
               : role == 's' ? "system"
                             : "tool") +
              "\",\"value\":\"x\"}";
    }
    return "{\"conversations\":[" + list + "]}\n";
  };
  const std::pair<const char*, const char*> cases[] = {
      {"uau", "the last turn is the user's: it has no answer"},
      {"aua", "the first turn is the assistant's, not the user's"},
      {"uuaa", "two user turns follow each other"},
      {"uaa", "two assistant turns follow each other"},
      {"usa", "a system turn is not the first turn"},
      {"s", "the conversation is a system turn only"},
      {"", "the conversation has no turns"},
      {"ut", "the role \"tool\" is not system, user or assistant"},
  };
  std::string all;
  for (const auto& [roles, problem] : cases) {
    EXPECT_EQ(Problem(chat("ua"), chat(roles)), problem);
    all += chat(roles) + chat("suaua");
  }
  ReadOptions options;
  options.drop_invalid = true;
  const auto file = Read(all, options);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->records.size(), std::size(cases));
  ASSERT_EQ(file->dropped.size(), std::size(cases));
  EXPECT_EQ(file->dropped[1].line, 3);
  EXPECT_EQ(file->dropped[1].problem, cases[1].second);
  EXPECT_EQ(file->records[1].line, 4);
}

TEST(DatasetFormatTest, BadFieldsAreNamed) {
  const std::string alpaca = "{\"instruction\":\"i\",\"output\":\"o\"}\n";
  const std::string text = "{\"text\":\"t\"}\n";
  EXPECT_EQ(Problem(kChat, R"({"messages":"x"})"),
            "\"messages\" is not a list but string");
  EXPECT_EQ(Problem(kChat, R"({"messages":[1]})"),
            "\"messages\" holds number, expected objects");
  EXPECT_EQ(Problem(kChat, R"({"messages":[{"role":"user"}]})"),
            "no \"content\"");
  EXPECT_EQ(Problem(kChat, R"({"messages":[{"role":"user","content":"q"},)"
                           R"({"role":"assistant","content":" \n"}]})"),
            "an assistant turn is blank");
  EXPECT_EQ(Problem(alpaca, R"({"instruction":"i","output":""})"),
            "an assistant turn is blank");
  EXPECT_EQ(Problem(alpaca, R"({"instruction":"i","output":"o",)"
                            R"("history":[["q"]]})"),
            "\"history\" holds something other than pairs of strings");
  EXPECT_EQ(Problem(text, R"({"text":""})"), "\"text\" is empty");
  EXPECT_EQ(Problem(text, R"({"text":7})"),
            "\"text\" is not a string but number");
  EXPECT_EQ(Problem(kPair, R"({"prompt":"p","completion":[]})"),
            "\"completion\" is not a string but array");
}

TEST(DatasetFormatTest, StopsAfterTheRecordsAskedFor) {
  ReadOptions options;
  options.records_max = 2;
  const auto file = Read(std::string(kPair) + kPair + "broken", options);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->records.size(), 2u);
}

}  // namespace
}  // namespace onegrid::model
