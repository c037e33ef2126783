#include "services/model/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "services/common/error_info.h"
#include "services/model/gguf_test_file.h"

namespace onegrid::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Ids of the tiny vocabulary, see gguf_test_file.h.
constexpr int kBos = 2, kStartOfTurn = 4, kEndOfTurn = 5, kCloseS = 6;
constexpr int kTwoNewlines = 7, kTwoSpaces = 8, kSpace = 9, kA = 10, kB = 11;
constexpr int kC = 12, kLess = 15;

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerOf(
    const std::vector<std::pair<std::string, GgufValue>>& metadata) {
  GgufWriter writer;
  writer.Set("general.architecture", std::string("gemma3"));
  for (const auto& [key, value] : metadata) writer.Set(key, value);
  const std::string path = WriteTestFile("tokenizer.gguf", "");
  EXPECT_TRUE(writer.WriteTo(path).ok());
  const auto file = GgufFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  return Tokenizer::FromGguf(**file);
}

class TokenizerTest : public ::testing::Test {
 protected:
  // Normal tokens by falling score, then bytes.
  void Build(const std::vector<std::string>& normal) {
    auto tokenizer = TokenizerOf(TinyTokenizerMetadata(normal));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    first_byte_ = kTinyFirstNormal + static_cast<int>(normal.size());
  }
  std::vector<int32_t> Encode(const std::string& text,
                              bool parse_control = false) {
    return tokenizer_->Encode(text, /*add_bos=*/false, parse_control);
  }
  int Byte(uint8_t byte) const { return first_byte_ + byte; }

  std::unique_ptr<Tokenizer> tokenizer_;
  int first_byte_ = 0;
};

TEST_F(TokenizerTest, BestScoreMergesFirstAndTiesGoLeft) {
  Build({"bc", "ab", "aa"});
  EXPECT_THAT(Encode("abc"), ElementsAre(kA, kTinyFirstNormal));
  EXPECT_THAT(Encode("aab"), ElementsAre(kA, kTinyFirstNormal + 1));
  EXPECT_THAT(Encode("aaa"), ElementsAre(kTinyFirstNormal + 2, kA));
  EXPECT_THAT(Encode(""), IsEmpty());
}

TEST_F(TokenizerTest, MergesNeedEveryStepInTheVocabulary) {
  Build({"abc"});
  EXPECT_THAT(Encode("abc"), ElementsAre(kA, kB, kC));
}

TEST_F(TokenizerTest, SpacesAreEscapedAndNoneIsAdded) {
  Build({"\u2581a"});
  EXPECT_THAT(Encode("a a"), ElementsAre(kA, kTinyFirstNormal));
  EXPECT_THAT(Encode(" "), ElementsAre(kSpace));
}

TEST_F(TokenizerTest, UnknownCharactersBecomeBytes) {
  Build({});
  EXPECT_THAT(Encode("\u00e9\n"),
              ElementsAre(Byte(0xC3), Byte(0xA9), Byte(0x0A)));
}

TEST_F(TokenizerTest, BytesThatAreNotUtf8BecomeBytes) {
  Build({});
  EXPECT_THAT(Encode("a\xff\xc3"), ElementsAre(kA, Byte(0xFF), Byte(0xC3)));
  EXPECT_THAT(Encode(std::string("a\0", 2)), ElementsAre(kA, Byte(0)));
  // As llama.cpp: what a character cut short lacks is taken from what follows.
  EXPECT_THAT(Encode("\303aa"), ElementsAre(Byte(0xC3), Byte('a'), kA));
  EXPECT_THAT(Encode("\200a"), ElementsAre(Byte(0x80), kA));
}

TEST_F(TokenizerTest, UserDefinedTokensAreAlwaysCutOut) {
  Build({});
  EXPECT_THAT(Encode("a  b\n\n\n"),
              ElementsAre(kA, kTwoSpaces, kB, kTwoNewlines, Byte('\n')));
  EXPECT_THAT(Encode("   "), ElementsAre(kTwoSpaces, kSpace));
  // Two U+2581 are not two spaces.
  EXPECT_THAT(Encode("\u2581\u2581"), ElementsAre(kSpace, kSpace));
}

TEST_F(TokenizerTest, ControlTokensOnlyWhenAsked) {
  Build({});
  EXPECT_THAT(Encode("a<end_of_turn>b", true), ElementsAre(kA, kEndOfTurn, kB));
  const std::vector<int32_t> plain = Encode("<end_of_turn>");
  EXPECT_EQ(plain.size(), 13u);
  EXPECT_EQ(plain[0], kLess);
  EXPECT_THAT(Encode("<start_of_turn><bos>", true),
              ElementsAre(kStartOfTurn, kBos));
  EXPECT_EQ(Encode("<end_of_tur>", true).size(), 12u);
}

// The file calls </s> user-defined; llama.cpp takes the name for an end marker.
TEST_F(TokenizerTest, EndMarkersAreControlWhateverTheirType) {
  Build({});
  EXPECT_THAT(Encode("</s>", true), ElementsAre(kCloseS));
  EXPECT_EQ(Encode("</s>").size(), 4u);
}

TEST_F(TokenizerTest, AddsBosOnlyWhenAsked) {
  Build({});
  EXPECT_THAT(tokenizer_->Encode("a", true, false), ElementsAre(kBos, kA));
  EXPECT_THAT(tokenizer_->Encode("", true, false), ElementsAre(kBos));
}

TEST_F(TokenizerTest, DecodeReturnsTheTextWithoutControlTokens) {
  Build({"\u2581a", "bc"});
  const std::string text = "a  bc a\n\n\u00e9 <b";
  EXPECT_EQ(tokenizer_->Decode(tokenizer_->Encode(text, true, false)), text);
  EXPECT_EQ(tokenizer_->Piece(kEndOfTurn), "");
  EXPECT_EQ(tokenizer_->Name(kEndOfTurn), "<end_of_turn>");
  EXPECT_EQ(tokenizer_->Piece(Byte(0xC3)), "\xC3");
  EXPECT_EQ(tokenizer_->Piece(-1), "");
  EXPECT_EQ(tokenizer_->Piece(1 << 30), "");
  EXPECT_EQ(tokenizer_->Name(1 << 30), "");
}

TEST_F(TokenizerTest, KnowsItsSpecialIds) {
  Build({});
  EXPECT_EQ(tokenizer_->bos(), 2);
  EXPECT_EQ(tokenizer_->eos(), 1);
  EXPECT_TRUE(tokenizer_->IsEndOfGeneration(1));
  EXPECT_TRUE(tokenizer_->IsEndOfGeneration(kEndOfTurn));
  EXPECT_FALSE(tokenizer_->IsEndOfGeneration(kA));
}

TEST(TokenizerErrorTest, OtherTokenizersAreUnsupported) {
  for (const bool space_prefix : {true, false}) {
    auto metadata = TinyTokenizerMetadata({});
    metadata.emplace_back("tokenizer.ggml.model",
                          std::string(space_prefix ? "llama" : "gpt2"));
    metadata.emplace_back("tokenizer.ggml.add_space_prefix", space_prefix);
    const auto tokenizer = TokenizerOf(metadata);
    EXPECT_EQ(common::ErrorReason(tokenizer.status()), "UNSUPPORTED_TOKENIZER");
    EXPECT_THAT(std::string(tokenizer.status().message()),
                HasSubstr(space_prefix ? "space prefix" : "found 'gpt2'"));
  }
}

TEST(TokenizerErrorTest, InconsistentVocabulariesAreCorrupt) {
  const std::pair<std::pair<const char*, GgufValue>, const char*> cases[] = {
      {{"scores", std::vector<float>{1, 2}}, "arrays differ in length"},
      {{"bos_token_id", uint32_t{100000}}, "expected a token below"},
      {{"token_type", std::vector<int32_t>(kTinyFirstNormal + 256, 9)},
       "expected a token type 1 to 6, found 9"},
      {{"token_type", std::vector<int32_t>(kTinyFirstNormal + 256, 1)},
       "no token for byte 0"},
      {{"tokens", std::vector<std::string>(kTinyFirstNormal + 256, "a")},
       "tokens[1] has the text of another token"},
      {{"tokens", std::vector<std::string>(kTinyFirstNormal + 256, "")},
       "tokens[0] is empty"},
  };
  for (const auto& [change, message] : cases) {
    auto metadata = TinyTokenizerMetadata({});
    metadata.emplace_back(std::string("tokenizer.ggml.") + change.first,
                          change.second);
    const auto tokenizer = TokenizerOf(metadata);
    ASSERT_FALSE(tokenizer.ok()) << message;
    EXPECT_EQ(common::ErrorReason(tokenizer.status()), "CORRUPT_FILE");
    EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(message));
  }
}

// "abcd" holds both "bcd" and "ab": the longest token of the whole text is cut
// out first, not the longest at the first place.
TEST(SpecialTokensTest, LongestTokenIsCutFirst) {
  Vocabulary vocabulary;
  vocabulary.tokens = {{"ab", 0, TokenType::kUserDefined},
                       {"bcd", 0, TokenType::kUserDefined},
                       {"d", 0, TokenType::kUserDefined}};
  const SpecialTokens specials(vocabulary);
  std::vector<std::pair<std::string, int>> fragments;
  for (const auto& fragment : specials.Split("abcdabd", false)) {
    fragments.emplace_back(std::string(fragment.text), fragment.id);
  }
  EXPECT_THAT(fragments, ElementsAre(std::pair("a", -1), std::pair("bcd", 1),
                                     std::pair("ab", 0), std::pair("d", 2)));
}

}  // namespace
}  // namespace onegrid::model
