#include "services/model/gemma_quant_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "services/common/error_info.h"

namespace onegrid::model {
namespace {

using ::testing::HasSubstr;

constexpr char kQ0[] = "model.language_model.layers.0.self_attn.q_proj";
constexpr char kUp1[] = "model.language_model.layers.1.mlp.up_proj";
constexpr char kUp11[] = "model.language_model.layers.11.mlp.up_proj";
constexpr char kEmbedding[] = "model.language_model.embed_tokens";
constexpr char kTable[] = "model.language_model.embed_tokens_per_layer";

GemmaQuantConfig Parse(const std::string& json,
                       const std::vector<std::string>& order = {},
                       bool tied_head = false) {
  auto config = GemmaQuantConfig::Parse(json, order, tied_head, "config.json");
  EXPECT_TRUE(config.ok()) << config.status();
  return *std::move(config);
}

void ExpectRefused(const std::string& json,
                   const std::vector<std::string>& order,
                   const std::string& reason, const std::string& message) {
  const auto config = GemmaQuantConfig::Parse(json, order, false, "c.json");
  ASSERT_FALSE(config.ok()) << json;
  EXPECT_EQ(common::ErrorReason(config.status()), reason) << config.status();
  EXPECT_THAT(std::string(config.status().message()), HasSubstr(message));
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("c.json"));
}

TEST(GemmaQuantConfigTest, DefaultsAreThoseOfTransformers) {
  const GemmaQuantConfig config = Parse("{}");
  EXPECT_EQ(config.Bits(kQ0, false), 4);
  EXPECT_EQ(config.Bits(kTable, true), 0);
  EXPECT_EQ(config.Bits("lm_head", false), 0);
  const GemmaQuantConfig tied =
      Parse(R"({"quantize_embeddings": true, "num_bits": 8})", {}, true);
  EXPECT_EQ(tied.Bits(kQ0, false), 8);
  EXPECT_EQ(tied.Bits(kEmbedding, true), 0);
  EXPECT_EQ(tied.Bits(kTable, true), 8);
  EXPECT_EQ(Parse(R"({"modules_to_not_convert": []})").Bits("lm_head", false),
            4);
}

TEST(GemmaQuantConfigTest, TheFirstOfTheFilesExpressionsCounts) {
  const std::string json = R"({"num_bits": 8, "module_quant_configs":
      {"layers\\.1\\.": {"num_bits": 2}, "layers\\.\\d+": {}}})";
  const GemmaQuantConfig config =
      Parse(json, {"layers\\.1\\.", "layers\\.\\d+"});
  EXPECT_EQ(config.Bits(kUp1, false), 2);
  EXPECT_EQ(config.Bits(kUp11, false), 8);
  const GemmaQuantConfig turned =
      Parse(json, {"layers\\.\\d+", "layers\\.1\\."});
  EXPECT_EQ(turned.Bits(kUp1, false), 8);
}

// As in one expression of alternatives, which transformers searches for.
TEST(GemmaQuantConfigTest, TheExpressionThatFitsEarlierInTheNameCounts) {
  const GemmaQuantConfig config = Parse(
      R"({"module_quant_configs":
          {"up_proj": {"num_bits": 2}, "layers\\.1\\.": {"num_bits": 8}}})",
      {"up_proj", "layers\\.1\\."});
  EXPECT_EQ(config.Bits(kUp1, false), 8);
  EXPECT_EQ(config.Bits(kUp11, false), 2);
}

TEST(GemmaQuantConfigTest, GroupsOfTheFilesExpressionsDoNotCount) {
  const GemmaQuantConfig config = Parse(
      R"j({"module_quant_configs": {"(a|b)(?P<x>c)": {"num_bits": 2},
          "(self_attn).(q|k)": {"num_bits": 8}}})j",
      {"(a|b)(?P<x>c)", "(self_attn).(q|k)"});
  EXPECT_EQ(config.Bits(kQ0, false), 8);
}

// The cases were checked with should_convert_module of transformers 5.23.
TEST(GemmaQuantConfigTest, SkippedNamesEndAtAPart) {
  const auto skips = [](const std::string& name, const char* module) {
    return Parse("{\"modules_to_not_convert\": [\"" + name + "\"]}")
               .Bits(module, false) == 0;
  };
  EXPECT_TRUE(skips("model.language_model.layers.1", kUp1));
  EXPECT_FALSE(skips("model.language_model.layers.1", kUp11));
  EXPECT_TRUE(skips("model.language_model.layers.*", kUp11));
  EXPECT_FALSE(skips("model.language_model.layers.1.mlp.up", kUp1));
  EXPECT_TRUE(skips("model.language_model.layers.1.mlp.", kUp1));
  EXPECT_TRUE(skips("up_proj", kUp1));       // the end of the name
  EXPECT_FALSE(skips("mlp", kUp1));          // neither start nor end
  EXPECT_TRUE(skips("model|visual", kUp1));  // alternatives are one
  EXPECT_FALSE(skips("visual|mode", kUp1));
  EXPECT_TRUE(skips("", kUp1));
}

TEST(GemmaQuantConfigTest, OtherMembersAreRefusedByName) {
  const std::string quantization = "UNSUPPORTED_QUANTIZATION";
  ExpectRefused(R"({"num_bits": 3})", {}, quantization, "num_bits: found 3");
  ExpectRefused(R"({"num_bits": "4"})", {}, quantization, "supported: 2, 4");
  ExpectRefused(R"({"module_quant_configs": {"a": {"num_bits": 16}}})", {"a"},
                quantization, "found 16");
  ExpectRefused(R"({"module_quant_configs": {"a": {"group": 32}}})", {"a"},
                quantization, "\"group\" is not known");
  ExpectRefused(R"({"module_quant_configs": {"(?=a)b": {}}})", {"(?=a)b"},
                quantization, "cannot be used");
  ExpectRefused(R"j({"module_quant_configs": {")|(": {}}})j", {")|("},
                quantization, "cannot be used");
  ExpectRefused(R"({"modules_to_not_convert": ["(?<=a)b"]})", {}, quantization,
                "modules_to_not_convert");
}

TEST(GemmaQuantConfigTest, DamagedOnesAreCorrupt) {
  for (const char* json : {"[]", "5", "", "{", R"({"quantize_embeddings": 1})",
                           R"({"module_quant_configs": []})",
                           R"({"module_quant_configs": {"a": 5}})",
                           R"({"modules_to_not_convert": "lm_head"})",
                           R"({"modules_to_not_convert": [1]})"}) {
    ExpectRefused(json, {"a"}, "CORRUPT_FILE", "quantization_config");
  }
  // Keys that the file's order lacks.
  ExpectRefused(R"({"module_quant_configs": {"a": {}, "b": {}}})", {"a"},
                "CORRUPT_FILE", "module_quant_configs");
  std::string many = "\"a\"";
  for (int i = 0; i < 1000; ++i) many += ", \"a\"";
  ExpectRefused("{\"modules_to_not_convert\": [" + many + "]}", {},
                "CORRUPT_FILE", "at most 200");
}

}  // namespace
}  // namespace onegrid::model
