#include "services/model/hf_vocabulary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/gguf_reader.h"
#include "services/model/gguf_test_file.h"
#include "services/model/hf_tokenizer.h"
#include "services/model/sentencepiece_model.h"
#include "services/model/sentencepiece_reader.h"
#include "services/model/tokenizer.h"

namespace onegrid::model {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kTokens = kTinyFirstNormal + 2 + 256;

Vocabulary TinyVocabulary() {
  GgufWriter writer;
  writer.Set("general.architecture", std::string("gemma3"));
  for (const auto& [key, value] : TinyTokenizerMetadata({"ab", "\u2581a"})) {
    writer.Set(key, value);
  }
  const std::string path = WriteTestFile("vocabulary.gguf", "");
  EXPECT_TRUE(writer.WriteTo(path).ok());
  const auto file = GgufFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  return *VocabularyFromGguf(**file);
}

// A folder of its own for each test, with the tiny tokenizer.model.
std::string Folder() {
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  const std::string folder =
      absl::StrCat(testing::TempDir(), "/", test->name());
  EXPECT_TRUE(common::MakeFolder(folder).ok());
  EXPECT_TRUE(common::WriteFileAtomic(absl::StrCat(folder, "/tokenizer.model"),
                                      SerializeModelProto(TinyVocabulary()))
                  .ok());
  return folder;
}

void Write(const std::string& folder, const std::string& name,
           const std::string& text) {
  ASSERT_TRUE(
      common::WriteFileAtomic(absl::StrCat(folder, "/", name), text).ok());
}

TEST(HfVocabularyTest, TokenizerModelComesBackAsItWas) {
  const Vocabulary expected = TinyVocabulary();
  const auto read = ReadHfVocabulary(Folder(), kTokens);
  ASSERT_TRUE(read.ok()) << read.status();
  const Vocabulary& found = read->vocabulary;
  ASSERT_EQ(found.tokens.size(), expected.tokens.size());
  for (size_t id = 0; id < expected.tokens.size(); ++id) {
    EXPECT_EQ(found.tokens[id].text, expected.tokens[id].text);
    EXPECT_EQ(found.tokens[id].score, expected.tokens[id].score);
    // <unk> is a control token in GGUF files, and itself in SentencePiece.
    if (static_cast<int32_t>(id) == expected.unknown_id) continue;
    EXPECT_EQ(found.tokens[id].type, expected.tokens[id].type) << id;
  }
  EXPECT_EQ(found.bos_id, expected.bos_id);
  EXPECT_EQ(found.eos_id, expected.eos_id);
  EXPECT_EQ(found.unknown_id, expected.unknown_id);
  EXPECT_EQ(found.pad_id, expected.pad_id);
  EXPECT_TRUE(read->chat_template.empty());
}

TEST(HfVocabularyTest, RowsWithoutATokenAreUnused) {
  const auto read = ReadHfVocabulary(Folder(), kTokens + 2);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->vocabulary.tokens.size(), kTokens + 2u);
  const VocabularyToken& last = read->vocabulary.tokens.back();
  EXPECT_EQ(last.text, absl::StrCat("[PAD", kTokens + 1, "]"));
  EXPECT_EQ(last.type, TokenType::kUnused);
  EXPECT_THAT(
      std::string(ReadHfVocabulary(Folder(), kTokens - 1).status().message()),
      HasSubstr("the embedding 273 rows"));
}

TEST(HfVocabularyTest, AddedTokensChangeTextAndType) {
  const std::string folder = Folder();
  Write(folder, "tokenizer_config.json",
        R"({"chat_template": "old", "added_tokens_decoder": {
            "4": {"content": "<start_of_turn>", "special": true},
            "10": {"content": "<unused7>", "special": false},
            "11": {"content": "\u2581\u2581x", "special": false},
            "9999": {"content": "<image>", "special": true}}})");
  Write(folder, "chat_template.jinja", "new");
  const auto read = ReadHfVocabulary(folder, kTokens);
  ASSERT_TRUE(read.ok()) << read.status();
  const auto& tokens = read->vocabulary.tokens;
  EXPECT_EQ(tokens[4].type, TokenType::kControl);
  EXPECT_EQ(tokens[10].text, "<unused7>");
  EXPECT_EQ(tokens[10].type, TokenType::kControl);
  EXPECT_EQ(tokens[10].score, -1000.0f);
  EXPECT_EQ(tokens[11].text, "  x");
  EXPECT_EQ(tokens[11].type, TokenType::kUserDefined);
  EXPECT_EQ(read->chat_template, "new");
  const auto metadata = TokenizerMetadata(*read);
  EXPECT_EQ(std::get<std::string>(metadata.at("tokenizer.chat_template")),
            "new");
  EXPECT_EQ(std::get<std::vector<int32_t>>(
                metadata.at("tokenizer.ggml.token_type"))[10],
            3);
}

TEST(HfVocabularyTest, BadConfigurationIsCorrupt) {
  const std::string folder = Folder();
  for (const char* text :
       {"", "[", "[]", R"({"added_tokens_decoder": []})",
        R"({"added_tokens_decoder": {"x": {"content": "a"}}})",
        R"({"added_tokens_decoder": {"-1": {"content": "a"}}})",
        R"({"added_tokens_decoder": {"4": {"content": 5}}})",
        R"({"added_tokens_decoder": {"4": {"content": ""}}})",
        R"({"added_tokens_decoder": {"4": {"content": "<eos>"}}})"}) {
    Write(folder, "tokenizer_config.json", text);
    const auto read = ReadHfVocabulary(folder, kTokens);
    ASSERT_FALSE(read.ok()) << text;
    EXPECT_EQ(common::ErrorReason(read.status()), "CORRUPT_FILE") << text;
    EXPECT_THAT(std::string(read.status().message()),
                HasSubstr("tokenizer_config.json"));
  }
}

// A folder with the tokenizer.json that is made of a vocabulary, and no other.
std::string FolderOfJson(const std::vector<std::string>& normal) {
  GgufWriter writer;
  writer.Set("general.architecture", std::string("gemma3"));
  for (const auto& [key, value] : TinyTokenizerMetadata(normal)) {
    writer.Set(key, value);
  }
  const std::string path = WriteTestFile("of_json.gguf", "");
  EXPECT_TRUE(writer.WriteTo(path).ok());
  const auto file = GgufFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  const auto files = HfTokenizerFiles(**file);
  EXPECT_TRUE(files.ok()) << files.status();
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  const std::string folder =
      absl::StrCat(testing::TempDir(), "/", test->name());
  EXPECT_TRUE(common::MakeFolder(folder).ok());
  Write(folder, "tokenizer.json", files->at("tokenizer.json"));
  return folder;
}

// Ids of a text by the tokenizer that a folder's vocabulary makes.
std::vector<int32_t> Ids(const HfVocabulary& tokenizer,
                         const std::string& text) {
  return Tokenizer(tokenizer.vocabulary).Encode(text, /*add_bos=*/true, false);
}

TEST(HfVocabularyTest, ScoresComeBackFromTheMergesOfTokenizerJson) {
  // Best first by score, not by id: "bc" merges before "ab" does.
  const std::vector<std::string> normal = {"bc", "ab", "abc", "\u2581a", "bca"};
  const std::string folder = FolderOfJson(normal);
  const auto read = ReadHfVocabulary(
      folder, kTinyFirstNormal + static_cast<int64_t>(normal.size()) + 256);
  ASSERT_TRUE(read.ok()) << read.status();
  const Vocabulary& found = read->vocabulary;
  EXPECT_EQ(found.kind, TokenizerKind::kScores);
  EXPECT_TRUE(found.merges.empty());
  const auto file =
      GgufFile::Open(absl::StrCat(testing::TempDir(), "/of_json.gguf"));
  ASSERT_TRUE(file.ok()) << file.status();
  const auto expected = VocabularyFromGguf(**file);
  ASSERT_TRUE(expected.ok()) << expected.status();
  ASSERT_EQ(found.tokens.size(), expected->tokens.size());
  for (size_t id = 0; id < found.tokens.size(); ++id) {
    EXPECT_EQ(found.tokens[id].text, expected->tokens[id].text);
    EXPECT_EQ(found.tokens[id].type, expected->tokens[id].type) << id;
  }
  const HfVocabulary source{*expected, ""};
  for (const char* text : {"abc", "abca", " abcabc  ab", "bcabca a", "cba\n"}) {
    EXPECT_EQ(Ids(*read, text), Ids(source, text)) << text;
  }
}

TEST(HfVocabularyTest, MergesThatNoScoresGiveAreRefused) {
  const std::string folder = FolderOfJson({"bc", "ab", "abc"});
  const auto text = common::ReadFile(folder + "/tokenizer.json");
  ASSERT_TRUE(text.ok());
  const std::string merges =
      R"(["b","c"],
["a","b"],
["a","bc"],
["ab","c"])";
  ASSERT_THAT(*text, HasSubstr(merges));
  const auto refused = [&](const std::string& other) {
    Write(folder, "tokenizer.json",
          absl::StrReplaceAll(*text, {{merges, other}}));
    const auto read = ReadHfVocabulary(folder, kTinyFirstNormal + 3 + 256);
    EXPECT_EQ(common::ErrorReason(read.status()), "UNSUPPORTED_TOKENIZER");
    return std::string(read.status().message());
  };
  EXPECT_THAT(refused(R"(["b","c"],["a","b"],["a","bc"])"),
              HasSubstr("3 merges of the 4 that its tokens have"));
  EXPECT_THAT(refused(R"(["a","bc"],["b","c"],["ab","c"],["a","b"])"),
              HasSubstr("the merges that make 'abc' lie apart"));
}

// Written again, the byte would have no token.
TEST(HfVocabularyTest, TheUnknownTokenIsNotThatOfAByte) {
  Vocabulary vocabulary = TinyVocabulary();
  vocabulary.unknown_id = kTinyFirstNormal + 2 + 25;
  ASSERT_EQ(vocabulary.tokens[vocabulary.unknown_id].text, "<0x19>");
  // The writer marks the piece as unknown; its type is byte in a hostile file.
  const std::string folder = Folder();
  std::string model = SerializeModelProto(vocabulary);
  const size_t text = model.find("<0x19>");
  const size_t type = model.find('\x18', text) + 1;
  ASSERT_EQ(model[type], static_cast<char>(TokenType::kUnknown));
  model[type] = static_cast<char>(TokenType::kByte);
  Write(folder, "tokenizer.model", model);
  const auto read = ReadHfVocabulary(folder, kTokens);
  EXPECT_EQ(common::ErrorReason(read.status()), "CORRUPT_FILE");
  EXPECT_THAT(std::string(read.status().message()),
              HasSubstr("is the byte token <0x19>"));
}

TEST(HfVocabularyTest, MissingModelIsNotFound) {
  EXPECT_EQ(ReadHfVocabulary("/nowhere", kTokens).status().code(),
            absl::StatusCode::kNotFound);
}

// Every prefix ends within a field or lacks the specs behind the pieces.
TEST(SentencepieceReaderTest, TruncatedModelIsCorrupt) {
  const std::string bytes = SerializeModelProto(TinyVocabulary());
  ASSERT_TRUE(VocabularyFromModelProto(bytes, "m").ok());
  for (size_t size = 0; size < bytes.size(); ++size) {
    const auto status =
        VocabularyFromModelProto(bytes.substr(0, size), "m").status();
    ASSERT_EQ(common::ErrorReason(status), "CORRUPT_FILE") << size;
  }
}

TEST(SentencepieceReaderTest, HostileBytesAreErrors) {
  for (const std::string& bytes :
       {std::string("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 10),
        std::string("\x0b\x01", 2), std::string(100, '\xff'),
        std::string("\x0a\x02\x0a\x09", 4), std::string("GGUF")}) {
    EXPECT_FALSE(VocabularyFromModelProto(bytes, "m").ok());
  }
  std::string unigram = SerializeModelProto(TinyVocabulary());
  unigram.append("\x12\x02\x18\x01",
                 4);  // trainer_spec { model_type: UNIGRAM }
  EXPECT_EQ(
      common::ErrorReason(VocabularyFromModelProto(unigram, "m").status()),
      "UNSUPPORTED_TOKENIZER");
  std::string far = SerializeModelProto(TinyVocabulary());
  far.append("\x12\x03\xc8\x02\x7f", 5);  // trainer_spec { bos_id: 127 }
  EXPECT_TRUE(VocabularyFromModelProto(far, "m").ok());
  far.append("\x12\x04\xc8\x02\xff\x7f", 6);  // 16383
  EXPECT_FALSE(VocabularyFromModelProto(far, "m").ok());
}

}  // namespace
}  // namespace onegrid::model
