#include "services/model/hf_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "nlohmann/json.hpp"
#include "services/model/gguf_test_file.h"
#include "services/model/sentencepiece_model.h"

namespace onegrid::model {
namespace {

using nlohmann::json;

std::map<std::string, std::string> FilesOf(
    const std::vector<std::string>& normal) {
  GgufWriter writer;
  writer.Set("general.architecture", std::string("gemma3"));
  for (const auto& [key, value] : TinyTokenizerMetadata(normal)) {
    writer.Set(key, value);
  }
  writer.Set("tokenizer.chat_template", std::string("{{ x }}"));
  const std::string path = WriteTestFile("hf.gguf", "");
  EXPECT_TRUE(writer.WriteTo(path).ok());
  const auto file = GgufFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  const auto files = HfTokenizerFiles(**file);
  EXPECT_TRUE(files.ok()) << files.status();
  return *files;
}

TEST(HfTokenizerTest, MergesAreAllSplitsBestScoreFirst) {
  const auto files = FilesOf({"bc", "ab", "abc"});
  const json tokenizer = json::parse(files.at("tokenizer.json"));
  EXPECT_EQ(tokenizer["model"]["merges"].dump(),
            "[[\"b\",\"c\"],[\"a\",\"b\"],[\"a\",\"bc\"],[\"ab\",\"c\"]]");
  EXPECT_EQ(tokenizer["model"]["vocab"].size(), kTinyFirstNormal + 3 + 256u);
  EXPECT_EQ(tokenizer["model"]["vocab"]["abc"], kTinyFirstNormal + 2);
  EXPECT_EQ(tokenizer["model"]["byte_fallback"], true);
}

TEST(HfTokenizerTest, AddedTokensAreControlAndUserDefinedOnes) {
  const auto files = FilesOf({});
  const json tokenizer = json::parse(files.at("tokenizer.json"));
  ASSERT_EQ(tokenizer["added_tokens"].size(), 9u);
  EXPECT_EQ(tokenizer["added_tokens"][5]["content"], "<end_of_turn>");
  EXPECT_EQ(tokenizer["added_tokens"][5]["special"], true);
  EXPECT_EQ(tokenizer["added_tokens"][8]["content"], "  ");
  EXPECT_EQ(tokenizer["added_tokens"][8]["special"], false);
  const json config = json::parse(files.at("tokenizer_config.json"));
  EXPECT_EQ(config["bos_token"], "<bos>");
  EXPECT_EQ(config["chat_template"], "{{ x }}");
}

// The first piece, <pad>, byte for byte: field 1 of 14 bytes; text, score
// -1000, type 3.
TEST(HfTokenizerTest, SentencePieceModelIsWireFormat) {
  const auto files = FilesOf({});
  const std::string& model = files.at("tokenizer.model");
  EXPECT_EQ(
      model.substr(0, 16),
      std::string("\x0a\x0e\x0a\x05<pad>\x15\x00\x00\x7a\xc4\x18\x03", 16));
  // User-defined spaces are escaped, <unk> has its role.
  EXPECT_NE(model.find("\u2581\u2581"), std::string::npos);
  EXPECT_NE(model.find(std::string("<unk>\x15\x00\x00\x7a\xc4\x18\x02", 12)),
            std::string::npos);
}

}  // namespace
}  // namespace onegrid::model
