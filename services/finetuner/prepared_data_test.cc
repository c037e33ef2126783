#include "services/finetuner/prepared_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "services/common/error_info.h"
#include "services/model/gguf_test_file.h"

namespace onegrid::finetuner {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kChat[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
    "{\"role\":\"assistant\",\"content\":\"b\"},"
    "{\"role\":\"user\",\"content\":\"c\"},"
    "{\"role\":\"assistant\",\"content\":\"ab\"}]}\n";
constexpr char kUnanswered[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n";

class PreparedDataTest : public ::testing::Test {
 protected:
  void SetUp() override {
    model::GgufWriter writer;
    writer.Set("general.architecture", std::string("gemma3"));
    for (const auto& [key, value] : model::TinyTokenizerMetadata({})) {
      writer.Set(key, value);
    }
    const std::string path = model::WriteTestFile("tokenizer.gguf", "");
    ASSERT_TRUE(writer.WriteTo(path).ok());
    tokenizer_ = *model::Tokenizer::FromGguf(**model::GgufFile::Open(path));
  }

  // One cut split "train" with this text.
  absl::StatusOr<PreparedData> Prepare(const std::string& text,
                                       int64_t sequence_tokens = 100) {
    const SplitFile file = {"train", model::WriteTestFile("d.jsonl", text), 0,
                            /*cut=*/true};
    return PrepareDataset({file}, options_, *tokenizer_, sequence_tokens);
  }

  // The labels of an example as text, one string per span.
  std::vector<std::string> Labels(const TokenizedExample& example) {
    std::vector<std::string> texts;
    for (const TokenSpan& span : example.labels) {
      std::string text;
      for (int64_t i = span.begin; i < span.end; ++i) {
        text += tokenizer_->Name(example.tokens[static_cast<size_t>(i)]);
      }
      texts.push_back(text);
    }
    return texts;
  }

  std::unique_ptr<model::Tokenizer> tokenizer_;
  DataOptions options_;
};

TEST_F(PreparedDataTest, AllAnswersOrTheLastAreLabels) {
  const auto all = Prepare(kChat);
  ASSERT_TRUE(all.ok()) << all.status();
  const TokenizedExample& example = all->splits[0][0];
  EXPECT_THAT(Labels(example),
              ElementsAre("b<end_of_turn>", "ab<end_of_turn>"));
  EXPECT_EQ(all->report.splits.at("train").label_tokens, 5);
  options_.train_on = TrainOn::kLast;
  const auto last = Prepare(kChat);
  ASSERT_TRUE(last.ok()) << last.status();
  EXPECT_THAT(Labels(last->splits[0][0]), ElementsAre("ab<end_of_turn>"));
  EXPECT_EQ(last->splits[0][0].tokens, example.tokens);
}

TEST_F(PreparedDataTest, AnswersOfAPromptAreNoLabels) {
  const auto data = Prepare(
      R"({"prompt":[{"role":"user","content":"a"},)"
      R"({"role":"assistant","content":"b"},{"role":"user","content":"c"}],)"
      R"("completion":[{"role":"assistant","content":"ab"}]})");
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_THAT(Labels(data->splits[0][0]), ElementsAre("ab<end_of_turn>"));
}

TEST_F(PreparedDataTest, PairsAndTextHaveTheirOwnLabels) {
  const auto pair = Prepare(R"({"prompt":"ab","completion":"c"})");
  ASSERT_TRUE(pair.ok()) << pair.status();
  EXPECT_THAT(Labels(pair->splits[0][0]), ElementsAre("c<eos>"));
  EXPECT_EQ(pair->splits[0][0].tokens.size(), 5u);
  // 9 tokens in windows of BOS and 3.
  const auto text = Prepare(R"({"text":"abcabcabc"})", 4);
  ASSERT_TRUE(text.ok()) << text.status();
  ASSERT_EQ(text->splits[0].size(), 3u);
  for (const TokenizedExample& window : text->splits[0]) {
    EXPECT_THAT(Labels(window), ElementsAre("abc"));
    EXPECT_EQ(window.tokens[0], tokenizer_->bos());
  }
  const SplitReport& report = text->report.splits.at("train");
  EXPECT_EQ(report.records, 1);
  EXPECT_EQ(report.examples, 3);
  EXPECT_THAT(report.windowed.lines, ElementsAre(1));
  EXPECT_EQ(report.truncated.count, 0);
}

TEST_F(PreparedDataTest, TheReportListsDropsAndTruncations) {
  options_.drop_invalid = true;
  std::string text;
  for (int i = 0; i < 30; ++i) text += kUnanswered;
  text += std::string("\n") + kChat;  // Line 32.
  const auto whole = Prepare(text);
  ASSERT_TRUE(whole.ok()) << whole.status();
  const auto tokens = static_cast<int64_t>(whole->splits[0][0].tokens.size());
  // Cut within the second answer: "a" is left of it.
  const auto cut = Prepare(text, tokens - 3);
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_THAT(Labels(cut->splits[0][0]), ElementsAre("b<end_of_turn>", "a"));
  const auto json = nlohmann::json::parse(cut->report.ToJson());
  EXPECT_EQ(json["sequence_tokens"], tokens - 3);
  EXPECT_EQ(json["train_on"], "all");
  const auto& split = json["splits"]["train"];
  EXPECT_EQ(split["format"], "messages");
  EXPECT_EQ(split["templates"]["gemma3"].get<std::string>().size(), 64u);
  EXPECT_EQ(split["records"], 1);
  EXPECT_EQ(split["label_tokens"], 3);
  EXPECT_EQ(split["record_tokens"]["max"], tokens);
  EXPECT_EQ(split["truncated"],
            nlohmann::json({{"count", 1}, {"lines", {32}}}));
  EXPECT_EQ(split["dropped"]["count"], 30);
  const auto& problem = split["dropped"]["problems"][0];
  EXPECT_THAT(problem["problem"].get<std::string>(), HasSubstr("no answer"));
  EXPECT_EQ(problem["count"], 30);
  EXPECT_EQ(problem["lines"].size(), 20u);
  EXPECT_EQ(problem["lines"][19], 20);
}

TEST_F(PreparedDataTest, AMaskWithoutLabelsIsRefusedOrDropped) {
  const auto refused = Prepare(std::string(kChat), 5);
  EXPECT_EQ(common::ErrorReason(refused.status()), "EXAMPLE_TOO_LONG");
  EXPECT_EQ(common::ErrorMetadata(refused.status()).at("line"), "1");
  options_.drop_invalid = true;
  const auto empty = Prepare(kChat, 5);
  EXPECT_EQ(common::ErrorReason(empty.status()), "DATASET_SCHEMA_INVALID");
  EXPECT_THAT(std::string(empty.status().message()),
              HasSubstr("split train has no example: 1 lines were dropped, "
                        "line 1: no label is left in sequence_tokens = 5"));
  // A split that is not cut keeps it.
  const SplitFile test = {"test", model::WriteTestFile("d.jsonl", kChat)};
  EXPECT_TRUE(PrepareDataset({test}, options_, *tokenizer_, 5).ok());
  EXPECT_EQ(common::ErrorReason(Prepare("\n").status()),
            "DATASET_SCHEMA_INVALID");
}

TEST_F(PreparedDataTest, AFileOfUnansweredTurnsIsRefusedWithItsLine) {
  const absl::Status status =
      Prepare(std::string(kChat) + kUnanswered).status();
  EXPECT_EQ(common::ErrorReason(status), "DATASET_SCHEMA_INVALID");
  EXPECT_EQ(common::ErrorMetadata(status).at("line"), "2");
}

TEST(QuantileTest, IsTheNearestRank) {
  EXPECT_EQ(Quantile({}, 0.5), 0);
  EXPECT_EQ(Quantile({7}, 0.5), 7);
  EXPECT_EQ(Quantile({4, 1, 3, 2}, 0.5), 2);
  EXPECT_EQ(Quantile({4, 1, 3, 2}, 0.51), 3);
  EXPECT_EQ(Quantile({4, 1, 3, 2}, 1), 4);
}

}  // namespace
}  // namespace onegrid::finetuner
