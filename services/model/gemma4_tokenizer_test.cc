// Gemma 4's tokenizer: the ids against those of Hugging Face's tokenizers for
// one vocabulary (testdata/README.md), its forms as GGUF and as tokenizer.json,
// and files that are not good.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/gguf_test_file.h"
#include "services/model/hf_tokenizer.h"
#include "services/model/hf_vocabulary.h"
#include "services/model/sentencepiece_model.h"
#include "services/model/tokenizer.h"
#include "services/model/tokenizer_digest.h"
#include "services/model/tokenizer_json.h"

namespace onegrid::model {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kGoldens[] = "services/model/testdata/";
constexpr int64_t kVocabSize = 1 << 24;
// Ids of the golden vocabulary, as in Gemma 4.
constexpr int kEos = 1, kBos = 2, kToolResponse = 50, kTurn = 105;
constexpr int kEndOfTurn = 106, kNewline = 107, kFirstByte = 238;

const std::string& GoldenText() {
  static const auto* const text = new std::string(
      ReadTestFile(absl::StrCat(kGoldens, "gemma4_tokenizer.json")));
  return *text;
}

const Vocabulary& Golden() {
  static const auto* const vocabulary = new absl::StatusOr<Vocabulary>(
      VocabularyFromTokenizerJson(GoldenText(), "t", kVocabSize));
  EXPECT_TRUE(vocabulary->ok()) << vocabulary->status();
  return **vocabulary;
}

std::string WriteGguf(const std::map<std::string, GgufValue>& metadata) {
  GgufWriter writer;
  writer.Set("general.architecture", std::string("gemma4"));
  for (const auto& [key, value] : metadata) writer.Set(key, value);
  const std::string path = WriteTestFile("gemma4.gguf", "");
  EXPECT_TRUE(writer.WriteTo(path).ok());
  return path;
}

std::unique_ptr<GgufFile> Open(
    const std::map<std::string, GgufValue>& metadata) {
  auto file = GgufFile::Open(WriteGguf(metadata));
  EXPECT_TRUE(file.ok()) << file.status();
  return *std::move(file);
}

void ExpectEqual(const Vocabulary& a, const Vocabulary& b) {
  EXPECT_EQ(a.kind, b.kind);
  ASSERT_EQ(a.tokens.size(), b.tokens.size());
  for (size_t id = 0; id < a.tokens.size(); ++id) {
    EXPECT_EQ(a.tokens[id].text, b.tokens[id].text);
    EXPECT_EQ(a.tokens[id].type, b.tokens[id].type) << a.tokens[id].text;
  }
  ASSERT_EQ(a.merges.size(), b.merges.size());
  for (size_t i = 0; i < a.merges.size(); ++i) {
    EXPECT_EQ(a.merges[i].left, b.merges[i].left);
    EXPECT_EQ(a.merges[i].right, b.merges[i].right);
    EXPECT_EQ(a.merges[i].joined, b.merges[i].joined);
  }
  EXPECT_THAT(
      (std::vector<int>{a.bos_id, a.eos_id, a.unknown_id, a.pad_id, a.mask_id}),
      ElementsAre(b.bos_id, b.eos_id, b.unknown_id, b.pad_id, b.mask_id));
  EXPECT_EQ(TokenizerDigest(a), TokenizerDigest(b));
}

TEST(Gemma4TokenizerTest, IdsAreThoseOfHuggingFace) {
  const Tokenizer tokenizer(Golden());
  std::ifstream lines(absl::StrCat(kGoldens, "gemma4_tokens.jsonl"));
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const json golden = json::parse(line);
    const std::string text = golden["text"];
    const std::vector<int32_t> ids = golden["ids"];
    EXPECT_EQ(tokenizer.Encode(text, false, /*parse_control=*/true), ids)
        << text;
    const auto plain = tokenizer.Encode(text, true, /*parse_control=*/false);
    EXPECT_EQ(plain[0], kBos);
    EXPECT_EQ(tokenizer.Decode(plain),
              absl::StrReplaceAll(text, {{"\u2581", " "}}));
  }
  EXPECT_GE(count, 50);
}

TEST(Gemma4TokenizerTest, ControlTokensOnlyWhenAsked) {
  const Tokenizer tokenizer(Golden());
  EXPECT_THAT(tokenizer.Encode("<|turn><turn|>", false, true),
              ElementsAre(kTurn, kEndOfTurn));
  EXPECT_GT(tokenizer.Encode("<|turn>", false, false).size(), 1u);
  // Visible ones are user-defined, and always tokens.
  const std::vector<int32_t> channel =
      tokenizer.Encode("<|channel>", false, false);
  EXPECT_THAT(channel, ElementsAre(100));
  EXPECT_EQ(tokenizer.Decode(channel), "<|channel>");
  // </s> is text here, <|tool_response> a control token of whatever type.
  EXPECT_GT(tokenizer.Encode("</s>", false, true).size(), 1u);
  EXPECT_GT(tokenizer.Encode("<|tool_response>", false, false).size(), 1u);
  EXPECT_EQ(tokenizer.Piece(kToolResponse), "");
}

TEST(Gemma4TokenizerTest, ThreeTokensEndGeneration) {
  Vocabulary vocabulary = Golden();
  vocabulary.eos_id = kEndOfTurn;  // As some files say.
  const Tokenizer tokenizer(std::move(vocabulary));
  std::vector<int> ends;
  for (int id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.IsEndOfGeneration(id)) ends.push_back(id);
  }
  EXPECT_THAT(ends, ElementsAre(kEos, kToolResponse, kEndOfTurn));
}

TEST(Gemma4TokenizerTest, NewlineRunsAreTokensAndJoinNothingElse) {
  const Tokenizer tokenizer(Golden());
  EXPECT_THAT(tokenizer.Encode("\n\n\n\n\n", false, false),
              ElementsAre(kNewline + 4));
  const std::vector<int32_t> ids =
      tokenizer.Encode(std::string(33, '\n'), false, false);
  EXPECT_GT(ids.size(), 1u);
  EXPECT_EQ(tokenizer.Decode(ids), std::string(33, '\n'));
}

// As llama.cpp, which makes U+FFFD of each byte that is part of no character.
TEST(Gemma4TokenizerTest, BytesThatAreNotUtf8AreReplaced) {
  const Tokenizer tokenizer(Golden());
  const auto encode = [&](const std::string& text) {
    return tokenizer.Encode(text, false, false);
  };
  EXPECT_EQ(encode("a\xff\xc3"), encode("a\uFFFD\uFFFD"));
  EXPECT_EQ(encode("\xe2\x96 a"), encode("\uFFFD\uFFFD a"));
  EXPECT_EQ(encode("\xc1\x81\xf0\x80\x81\x81"), encode("AA"));  // overlong
  EXPECT_EQ(encode("\xf4\x90\x80\x80"), encode("\uFFFD\uFFFD\uFFFD\uFFFD"));
  EXPECT_THAT(
      encode("\xed\xa0\x80"),  // a surrogate
      ElementsAre(kFirstByte + 0xED, kFirstByte + 0xA0, kFirstByte + 0x80));
}

TEST(Gemma4TokenizerTest, EarlierMergesGoFirstAndTiesGoLeft) {
  json file = json::parse(GoldenText());
  json& merges = file["model"]["merges"];
  const auto ids = [&] {
    auto vocabulary = VocabularyFromTokenizerJson(file.dump(), "t", kVocabSize);
    EXPECT_TRUE(vocabulary.ok()) << vocabulary.status();
    return Tokenizer(*std::move(vocabulary)).Encode("abab", false, false);
  };
  json& vocab = file["model"]["vocab"];
  const int first = vocab.size();
  for (const char* text : {"aba", "bab", "abab", "ba", "ab"}) {
    if (!vocab.contains(text)) vocab[text] = vocab.size();
  }
  const int ab = vocab["ab"], ba = vocab["ba"], a = vocab["a"], b = vocab["b"];
  EXPECT_LT(a, first);
  merges = json::parse(R"([["a", "b"], ["b", "a"]])");
  EXPECT_THAT(ids(), ElementsAre(ab, ab));
  merges = json::parse(R"(["b a", ["a", "b"]])");
  EXPECT_THAT(ids(), ElementsAre(a, ba, b));
  // "abab" is a token, but no merge makes it.
  merges = json::parse(R"(["a b", "b a", "ab a"])");
  EXPECT_THAT(ids(), ElementsAre(ab, ab));
  merges = json::parse(R"(["a b", "ab ab"])");
  EXPECT_THAT(ids(), ElementsAre(int{vocab["abab"]}));
}

TEST(Gemma4FilesTest, GgufComesBackAsItWas) {
  HfVocabulary tokenizer{Golden(), "{{ x }}"};
  const auto file = Open(TokenizerMetadata(tokenizer));
  EXPECT_EQ(*file->GetString("tokenizer.ggml.model"), "gemma4");
  EXPECT_TRUE(*file->GetBool("tokenizer.ggml.add_bos_token"));
  const auto read = VocabularyFromGguf(*file);
  ASSERT_TRUE(read.ok()) << read.status();
  ExpectEqual(*read, tokenizer.vocabulary);
  EXPECT_EQ(*TokenizerDigest(*file), TokenizerDigest(tokenizer.vocabulary));
}

TEST(Gemma4FilesTest, HuggingFaceFolderComesBackAsItWas) {
  HfVocabulary tokenizer{Golden(), "{{ x }}"};
  tokenizer.vocabulary.eos_id = kEndOfTurn;
  const auto files = HfTokenizerFiles(*Open(TokenizerMetadata(tokenizer)));
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(files->count("tokenizer.model"), 0u);
  const std::string folder = testing::TempDir() + "/gemma4";
  ASSERT_TRUE(common::MakeFolder(folder).ok());
  for (const auto& [name, text] : *files) {
    ASSERT_TRUE(
        common::WriteFileAtomic(absl::StrCat(folder, "/", name), text).ok());
  }
  const int64_t size = tokenizer.vocabulary.tokens.size();
  const auto read = ReadHfVocabulary(folder, size);
  ASSERT_TRUE(read.ok()) << read.status();
  ExpectEqual(read->vocabulary, tokenizer.vocabulary);
  EXPECT_EQ(read->chat_template, "{{ x }}");
  const auto longer = ReadHfVocabulary(folder, size + 1);
  ASSERT_TRUE(longer.ok()) << longer.status();
  EXPECT_EQ(longer->vocabulary.tokens.back().type, TokenType::kUnused);
  EXPECT_THAT(
      std::string(ReadHfVocabulary(folder, size - 1).status().message()),
      HasSubstr("expected an id below"));
}

TEST(Gemma4FilesTest, DigestCoversMerges) {
  Vocabulary vocabulary = Golden();
  const std::string digest = TokenizerDigest(vocabulary);
  std::swap(vocabulary.merges[0], vocabulary.merges[1]);
  EXPECT_NE(TokenizerDigest(vocabulary), digest);
}

TEST(Gemma4HostileTest, BadGgufIsCorrupt) {
  const auto good = TokenizerMetadata({Golden(), ""});
  using Lines = std::vector<std::string>;
  const std::pair<Lines, const char*> cases[] = {
      {{"a"}, "merges[0] is not of two parts"},
      {{"a "}, "merges[0] is not of two parts"},
      {{" a"}, "merges[0] is not of two parts"},
      {{""}, "merges[0] is not of two parts"},
      {{"\n \n", "a \xff"}, "merges[1] has a part that is no token"},
      {{"\n a"}, "merges[0] makes a text that is no token"},
      {{"\n \n", "\n \n"}, "merges[1] repeats an earlier one"},
      {{}, "merges is empty"},
  };
  for (const auto& [lines, message] : cases) {
    auto bad = good;
    bad["tokenizer.ggml.merges"] = lines;
    const auto read = VocabularyFromGguf(*Open(bad));
    ASSERT_FALSE(read.ok()) << message;
    EXPECT_EQ(common::ErrorReason(read.status()), "CORRUPT_FILE");
    EXPECT_THAT(std::string(read.status().message()), HasSubstr(message));
  }
  for (const char* key : {"merges", "tokens", "token_type", "bos_token_id"}) {
    auto bad = good;
    bad.erase(absl::StrCat("tokenizer.ggml.", key));
    EXPECT_FALSE(VocabularyFromGguf(*Open(bad)).ok()) << key;
  }
  auto suppressed = good;
  suppressed["tokenizer.ggml.suppress_tokens"] = std::vector<int32_t>{7, 3};
  EXPECT_THAT(VocabularyFromGguf(*Open(suppressed))->suppressed,
              ElementsAre(7, 3));
  suppressed["tokenizer.ggml.suppress_tokens"] = std::vector<int32_t>{-1};
  EXPECT_EQ(common::ErrorReason(VocabularyFromGguf(*Open(suppressed)).status()),
            "CORRUPT_FILE");
  auto scores = good;
  scores["tokenizer.ggml.scores"] = std::vector<float>{1};  // Not read.
  EXPECT_TRUE(VocabularyFromGguf(*Open(scores)).ok());
}

void ExpectRefused(const std::string& text, const char* reason,
                   const char* message) {
  const auto read = VocabularyFromTokenizerJson(text, "t.json", kVocabSize);
  ASSERT_FALSE(read.ok()) << message;
  EXPECT_EQ(common::ErrorReason(read.status()), reason) << message;
  EXPECT_THAT(std::string(read.status().message()), HasSubstr(message));
  EXPECT_THAT(std::string(read.status().message()), HasSubstr("t.json"));
}

TEST(Gemma4HostileTest, BadTokenizerJsonIsCorrupt) {
  const json good = json::parse(GoldenText());
  const std::pair<const char*, const char*> cases[] = {
      {R"({"/model/vocab": []})", "model.vocab is not an object"},
      {R"({"/model/vocab/a": -1})", "expected an id below"},
      {R"({"/model/vocab/a": 1e30})", "expected an id below"},
      {R"({"/model/vocab/a": 4000000000})", "expected an id below"},
      {R"({"/model/vocab/a": [[]]})", "found array"},
      {R"({"/model/vocab/a": 5})", "both have the id 5"},
      {R"({"/model/vocab/zzzz": 900000})", "expected an id below"},
      {R"({"/model/vocab/": 1042})", "[1042] is empty"},
      {R"({"/model/merges": null})", "merges is not a list"},
      {R"({"/model/merges": []})", "merges is empty"},
      {R"({"/model/merges/0": "ab"})", "merges[0] is not of two parts"},
      {R"({"/model/merges/0": ["a"]})", "merges[0] is not of two parts"},
      {R"({"/model/merges/0": ["a", 1]})", "merges[0] is not of two parts"},
      {R"({"/model/merges/0": ["a", ""]})", "merges[0] is not of two parts"},
      {R"({"/model/merges/0": ["a", "no"]})", "merges[0] has a part"},
      {R"({"/model/merges/0": ["a", "\n"]})", "merges[0] makes a text"},
      {R"({"/model/merges/1": ["\n", "\n"]})", "merges[1] repeats"},
      {R"({"/model/unk_token": "none"})", "no token 'none'"},
      {R"({"/added_tokens": 5})", "added_tokens is not a list"},
      {R"({"/added_tokens/0": 5})", "other than tokens"},
      {R"({"/added_tokens/0": {"id": -1, "content": "x"}})", "than tokens"},
      {R"({"/added_tokens/0/content": "<x>"})", "both have the id 0"},
  };
  for (const auto& [change, message] : cases) {
    json bad = good;
    const json changes = json::parse(change);
    for (const auto& [where, value] : changes.items()) {
      bad[json::json_pointer(where)] = value;
    }
    ExpectRefused(bad.dump(), "CORRUPT_FILE", message);
  }
  ExpectRefused("[", "CORRUPT_FILE", "not a JSON object");
  ExpectRefused("[]", "CORRUPT_FILE", "not a JSON object");
}

TEST(Gemma4HostileTest, OtherTokenizersAreUnsupported) {
  const json good = json::parse(GoldenText());
  const std::pair<const char*, const char*> cases[] = {
      {"/model/type", "other than BPE"},
      {"/model/byte_fallback", "no byte fallback"},
      {"/normalizer", "a normalizer"},
      {"/pre_tokenizer", "a pre_tokenizer"},
      {"/model/end_of_word_suffix", "end_of_word_suffix"},
      {"/model/dropout", "dropout"},
  };
  for (const auto& [where, message] : cases) {
    json bad = good;
    bad[json::json_pointer(where)] = "x";
    ExpectRefused(bad.dump(), "UNSUPPORTED_TOKENIZER", message);
  }
  json strips = good;
  strips["added_tokens"][0]["rstrip"] = true;
  ExpectRefused(strips.dump(), "UNSUPPORTED_TOKENIZER", "has rstrip");
}

TEST(Gemma4HostileTest, NestingIsNoDepth) {
  const std::string deep = std::string(20000, '[') + std::string(20000, ']');
  for (const char* key : {"normalizer", "added_tokens", "model"}) {
    EXPECT_FALSE(VocabularyFromTokenizerJson(
                     absl::StrCat("{\"", key, "\":", deep, "}"), "t", 9)
                     .ok());
  }
}

TEST(Gemma4HostileTest, DamagedFilesNeverCrash) {
  std::mt19937 rng(1);
  const std::string good = GoldenText();
  int read = 0;
  for (int i = 0; i < 40; ++i) {
    std::string bad = good;
    for (int change = 0; change < 3; ++change) {
      bad[rng() % bad.size()] = "\"\\[]{}:,0a\xff"[rng() % 11];
    }
    if (rng() % 4 == 0) bad.resize(rng() % bad.size());
    const auto vocabulary = VocabularyFromTokenizerJson(bad, "t", kVocabSize);
    if (!vocabulary.ok()) continue;
    ++read;
    Tokenizer(*vocabulary).Encode("abc \n\n<|turn>\xff", true, true);
  }
  EXPECT_LT(read, 40);
}

}  // namespace
}  // namespace onegrid::model
