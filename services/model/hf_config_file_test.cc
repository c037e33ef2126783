#include "services/model/hf_config_file.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::model {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

absl::StatusOr<HfConfigFile> Read(const std::string& text) {
  const std::string folder = testing::TempDir();
  EXPECT_TRUE(
      common::WriteFileAtomic(absl::StrCat(folder, "/config.json"), text).ok());
  return ReadHfConfigFile(folder);
}

TEST(HfConfigFileTest, TakesOutHowTheWeightsAreStored) {
  const auto file = Read(R"({"hidden_size": 64, "tie_word_embeddings": true,
                             "quantization_config": {"quant_method": "x"}})");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(json::parse(file->model_json), json({{"hidden_size", 64}}));
  EXPECT_EQ(json::parse(file->quantization_json),
            json({{"quant_method", "x"}}));
  EXPECT_TRUE(file->tied_head);
  EXPECT_THAT(file->path, HasSubstr("/config.json"));
}

TEST(HfConfigFileTest, KeepsTheOrderOfModulePatterns) {
  const auto file = Read(R"({"z": {"module_quant_configs": {"x": 1}},
      "quantization_config": {"quant_method": "gemma",
          "other": {"y": {"w": 1}},
          "module_quant_configs": {"b": {"num_bits": 2}, "a": {}, "b": {}}}})");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->quant_method, "gemma");
  EXPECT_EQ(file->module_patterns, (std::vector<std::string>{"b", "a", "b"}));
  EXPECT_EQ(
      Read(R"({"quantization_config": {"quant_method": 5}})")->quant_method,
      "");
}

TEST(HfConfigFileTest, OfAMultimodalModelTheTextModelIsTaken) {
  const auto file = Read(R"({
      "architectures": ["Gemma4ForConditionalGeneration"], "eos_token_id": 7,
      "text_config": {"hidden_size": 64}, "vision_config": {"hidden_size": 5}})");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(file->multimodal);
  EXPECT_EQ(json::parse(file->model_json),
            json({{"hidden_size", 64},
                  {"eos_token_id", 7},
                  {"architectures", {"Gemma4ForCausalLM"}}}));
  for (const char* text :
       {R"({"architectures": ["Gemma4ForConditionalGeneration"]})",
        R"({"architectures": ["LlavaModel"], "text_config": {}})",
        R"({"architectures": [5], "text_config": {}})",
        R"({"architectures": "x", "text_config": {}})"}) {
    const auto other = Read(text);
    ASSERT_TRUE(other.ok()) << other.status();
    EXPECT_FALSE(other->multimodal) << text;
  }
}

TEST(HfConfigFileTest, FloatModelsHaveNoQuantization) {
  for (const char* text : {"{}", R"({"quantization_config": null})"}) {
    const auto file = Read(text);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(file->quantization_json, "");
    EXPECT_EQ(file->model_json, "{}");
    EXPECT_TRUE(file->tied_head);
  }
}

TEST(HfConfigFileTest, AHeadMayBeUntiedInEitherPlace) {
  for (const char* text : {R"({"tie_word_embeddings": false})",
                           R"({"text_config": {"tie_word_embeddings": false}})",
                           R"({"tie_word_embeddings": true,
            "text_config": {"tie_word_embeddings": false}})"}) {
    const auto file = Read(text);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_FALSE(file->tied_head) << text;
    EXPECT_EQ(file->model_json.find("tie_word"), std::string::npos);
  }
  EXPECT_TRUE(Read(R"({"text_config": 5})")->tied_head);
}

TEST(HfConfigFileTest, WhatIsNoObjectIsRefused) {
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("5"),
        std::string("{\"a\": \"\xff\"}"), std::string("\0\0", 2),
        absl::StrCat("{\"a\":", std::string(100'000, '['),
                     std::string(100'000, ']'), "}")}) {
    const auto file = Read(text);
    EXPECT_EQ(common::ErrorReason(file.status()), "CORRUPT_FILE");
    EXPECT_THAT(std::string(file.status().message()),
                HasSubstr("/config.json"));
  }
  EXPECT_FALSE(ReadHfConfigFile("/nowhere").ok());
}

}  // namespace
}  // namespace onegrid::model
