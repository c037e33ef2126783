#include "services/finetuner/text_corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "services/common/error_info.h"
#include "services/model/gguf_reader.h"
#include "services/model/gguf_test_file.h"

namespace onegrid::finetuner {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Ids of the tiny vocabulary, see gguf_test_file.h.
constexpr int kBos = 2, kA = 10, kB = 11;

std::unique_ptr<model::Tokenizer> TinyTokenizer() {
  model::GgufWriter writer;
  writer.Set("general.architecture", std::string("gemma3"));
  for (const auto& [key, value] : model::TinyTokenizerMetadata({})) {
    writer.Set(key, value);
  }
  const std::string path = model::WriteTestFile("tokenizer.gguf", "");
  EXPECT_TRUE(writer.WriteTo(path).ok());
  return *model::Tokenizer::FromGguf(**model::GgufFile::Open(path));
}

TEST(TextCorpusTest, FormFeedsSeparateDocuments) {
  EXPECT_THAT(SplitDocuments("\f\nab\n\f\n\n \fb c\n"),
              ElementsAre("ab", "b c"));
  EXPECT_THAT(SplitDocuments(" \f\n"), IsEmpty());
}

TEST(TextCorpusTest, WindowsCoverTheDocumentOnceAndLabelAllButBos) {
  const auto tokenizer = TinyTokenizer();
  const auto windows = WindowsOf(*tokenizer, "abaabbab", 5);
  ASSERT_EQ(windows.size(), 2);
  EXPECT_THAT(windows[0].tokens, ElementsAre(kBos, kA, kB, kA, kA));
  EXPECT_THAT(windows[1].tokens, ElementsAre(kBos, kB, kB, kA, kB));
  EXPECT_THAT(windows[0].labels, ElementsAre(TokenSpan{1, 5}));
  const auto sequences = PackSingly(windows);
  ASSERT_EQ(sequences.size(), 2);
  EXPECT_THAT(sequences[0].targets, ElementsAre(kA, kB, kA, kA, kNoTarget));
  EXPECT_EQ(sequences[1].label_count(), 4);
}

TEST(TextCorpusTest, AShortTailIsDroppedAndAShortDocumentKept) {
  const auto tokenizer = TinyTokenizer();
  EXPECT_EQ(WindowsOf(*tokenizer, "aaaaaaaaa", 9).size(), 1);
  EXPECT_EQ(WindowsOf(*tokenizer, "aaaaaaaaaa", 9).size(), 2);
  EXPECT_EQ(WindowsOf(*tokenizer, "a", 9).size(), 1);
}

TEST(TextCorpusTest, ADocumentKeepsItsPartWhateverElseThereIs) {
  const auto tokenizer = TinyTokenizer();
  std::string text;
  for (int i = 0; i < 64; ++i) {
    for (int bit = 0; bit < 6; ++bit) text += (i >> bit) & 1 ? 'a' : 'b';
    text += "\f";
  }
  const std::string path = model::WriteTestFile("corpus.txt", text);
  const auto split = ReadTextCorpus({path}, *tokenizer, 9, 30);
  ASSERT_TRUE(split.ok()) << split.status();
  EXPECT_EQ(split->train.size() + split->heldout.size(), 64);
  EXPECT_GT(split->heldout.size(), 8);
  EXPECT_LT(split->heldout.size(), 32);
  const std::string longer =
      model::WriteTestFile("longer.txt", "cc\f" + text + "ccc");
  const auto again = ReadTextCorpus({longer}, *tokenizer, 9, 30);
  ASSERT_TRUE(again.ok()) << again.status();
  for (const TokenizedExample& window : split->heldout) {
    EXPECT_NE(std::find(again->heldout.begin(), again->heldout.end(), window),
              again->heldout.end());
  }
  EXPECT_THAT(ReadTextCorpus({path}, *tokenizer, 9, 0)->heldout, IsEmpty());
}

TEST(TextCorpusTest, AFileWithoutTextIsRefused) {
  const auto tokenizer = TinyTokenizer();
  const std::string path = model::WriteTestFile("empty.txt", "\f \n");
  EXPECT_EQ(
      common::ErrorReason(ReadTextCorpus({path}, *tokenizer, 9, 0).status()),
      "EMPTY_TEXT");
}

TEST(TextCorpusTest, SpreadWindowsAreEvenlySpaced) {
  std::vector<TokenizedExample> windows(10);
  for (int i = 0; i < 10; ++i) windows[i].tokens = {i};
  std::vector<int32_t> first;
  for (const auto& window : SpreadWindows(windows, 4)) {
    first.push_back(window.tokens[0]);
  }
  EXPECT_THAT(first, ElementsAre(0, 2, 5, 7));
  EXPECT_EQ(SpreadWindows(windows, 0).size(), 10);
  EXPECT_EQ(SpreadWindows(windows, 11).size(), 10);
}

}  // namespace
}  // namespace onegrid::finetuner
