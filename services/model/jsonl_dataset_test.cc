#include "services/model/jsonl_dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "services/common/error_info.h"
#include "services/model/gguf_test_file.h"

namespace onegrid::model {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

absl::StatusOr<std::vector<Example>> Read(const std::string& text) {
  return ReadJsonl(WriteTestFile("data.jsonl", text));
}

TEST(JsonlDatasetTest, ReadsExamplesAndLineNumbers) {
  const auto examples = Read(
      "{\"prompt\":\"a\\n\\u00e9\",\"completion\":\" b\",\"id\":7}\r\n"
      "\n"
      "{\"completion\":\"c\",\"prompt\":\"\"}");
  ASSERT_TRUE(examples.ok()) << examples.status();
  ASSERT_EQ(examples->size(), 2u);
  EXPECT_EQ((*examples)[0].prompt, "a\n\u00e9");
  EXPECT_EQ((*examples)[0].completion, " b");
  EXPECT_EQ((*examples)[0].line, 1);
  EXPECT_EQ((*examples)[1].prompt, "");
  EXPECT_EQ((*examples)[1].line, 3);
}

TEST(JsonlDatasetTest, EmptyFileHasNoExamples) {
  const auto examples = Read("");
  ASSERT_TRUE(examples.ok()) << examples.status();
  EXPECT_THAT(*examples, IsEmpty());
}

TEST(JsonlDatasetTest, BadLineIsNamedWithItsProblem) {
  const std::pair<const char*, const char*> cases[] = {
      {"not json", "not JSON"},
      {"{\"prompt\":\"a\",\"completion\":\"b\"} x", "not JSON"},
      {"{\"prompt\":\"a\"", "not JSON"},
      {"{\"prompt\":\"\\ud800\",\"completion\":\"b\"}", "not JSON"},
      {"[1]", "not a JSON object but array"},
      {"{\"prompt\":\"a\"}", "no \"completion\""},
      {"{\"completion\":\"a\"}", "no \"prompt\""},
      {"{\"prompt\":3,\"completion\":\"b\"}",
       "\"prompt\" is not a string but number"},
      {"{\"prompt\":\"a\",\"completion\":null}",
       "\"completion\" is not a string but null"},
      {"{\"prompt\":\"a\",\"completion\":\"\"}", "\"completion\" is empty"},
      {"{\"prompt\":\"\xff\",\"completion\":\"b\"}",
       "not UTF-8 at byte 12 of the line"},
  };
  const std::string good = "{\"prompt\":\"a\",\"completion\":\"b\"}\n";
  for (const auto& [line, problem] : cases) {
    const auto examples = Read(good + good + line + "\n" + good);
    ASSERT_FALSE(examples.ok()) << line;
    EXPECT_EQ(examples.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(common::ErrorReason(examples.status()), "DATASET_SCHEMA_INVALID");
    const auto metadata = common::ErrorMetadata(examples.status());
    EXPECT_EQ(metadata.at("line"), "3") << line;
    EXPECT_EQ(metadata.at("problem"), problem) << line;
    EXPECT_THAT(std::string(examples.status().message()),
                HasSubstr("data.jsonl: line 3: "));
  }
}

TEST(JsonlDatasetTest, MissingFileIsNotFound) {
  EXPECT_EQ(ReadJsonl("/nonexistent/x.jsonl").status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace onegrid::model
