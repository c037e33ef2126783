#include "services/inference/vocabulary_grpc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "services/inference/served_model.h"
#include "services/inference/tiny_model.h"

namespace onegrid::inference {
namespace {

using ::testing::IsSupersetOf;

TEST(VocabularyGrpcTest, EachTokenHasItsBytesAndControlTokensTheirNames) {
  const std::string path = testing::TempDir() + "/vocabulary.gguf";
  ASSERT_TRUE(WriteTinyModel(path).ok());
  ServedModelOptions options;
  options.model_path = path;
  options.threads = {1, "--threads"};
  const auto model = ServedModel::Load(options);
  ASSERT_TRUE(model.ok()) << model.status();
  const model::Tokenizer& tokenizer = (*model)->tokenizer();
  const v1::Vocabulary vocabulary = MakeVocabulary(tokenizer, "a-sha256");
  EXPECT_EQ(vocabulary.artifact_sha256(), "a-sha256");
  ASSERT_EQ(vocabulary.texts_size(), kTinyVocab);
  EXPECT_EQ(vocabulary.texts(kTinyFirstByte + 0xE9), "\xE9");
  EXPECT_EQ(vocabulary.texts(kTinyLetterA), "a");
  EXPECT_EQ(vocabulary.texts(260), "<end_of_turn>");
  EXPECT_THAT(vocabulary.control_ids(),
              IsSupersetOf({kTinyEos, kTinyBos, 260}));
  EXPECT_TRUE(std::is_sorted(vocabulary.control_ids().begin(),
                             vocabulary.control_ids().end()));
  // The texts of what a text is made of are the text.
  std::string text;
  for (const int32_t id : tokenizer.Encode("h\u00e9 llo", false, false)) {
    text += vocabulary.texts(id);
  }
  EXPECT_EQ(text, "h\u00e9 llo");
}

}  // namespace
}  // namespace onegrid::inference
