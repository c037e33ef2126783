#include "services/model/ct_config.h"

#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"

namespace onegrid::model {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

const char* const kModules[] = {
    "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj",
    "model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj", "lm_head"};

std::vector<CtModule> Modules() {
  std::vector<CtModule> modules = {{"model.embed_tokens", "Embedding"}};
  for (const char* name : kModules) modules.push_back({name, "Linear"});
  return modules;
}

json Group(int bits, int group, const std::vector<std::string>& targets) {
  return {{"targets", targets},
          {"input_activations", nullptr},
          {"output_activations", nullptr},
          {"format", "pack-quantized"},
          {"weights",
           {{"num_bits", bits},
            {"type", "int"},
            {"symmetric", true},
            {"strategy", group == 0 ? "channel" : "group"},
            {"group_size", group == 0 ? json() : json(group)},
            {"dynamic", false},
            {"actorder", nullptr},
            {"observer", "minmax"}}}};
}

json Config(const json& groups) {
  return {{"quant_method", "compressed-tensors"},
          {"format", "pack-quantized"},
          {"quantization_status", "compressed"},
          {"kv_cache_scheme", nullptr},
          {"ignore", {"lm_head"}},
          {"config_groups", groups}};
}

absl::StatusOr<std::map<std::string, CtScheme>> Assign(const json& config) {
  ASSIGN_OR_RETURN(const CtConfig parsed,
                   CtConfig::Parse(config.dump(), "config.json"));
  return parsed.Assign(Modules());
}

void ExpectRefused(const json& config, const std::string& reason,
                   const std::string& message) {
  const auto schemes = Assign(config);
  ASSERT_FALSE(schemes.ok()) << message;
  EXPECT_EQ(common::ErrorReason(schemes.status()), reason) << schemes.status();
  EXPECT_THAT(std::string(schemes.status().message()), HasSubstr(message));
  EXPECT_THAT(std::string(schemes.status().message()),
              HasSubstr("config.json"));
}

TEST(CtConfigTest, AClassIsEveryModuleOfItThatIsNotIgnored) {
  const auto schemes = Assign(Config({{"group_0", Group(4, 32, {"Linear"})}}));
  ASSERT_TRUE(schemes.ok()) << schemes.status();
  EXPECT_EQ(schemes->size(), 4u);
  EXPECT_EQ(schemes->at(kModules[0]), (CtScheme{4, 32}));
  EXPECT_EQ(schemes->count("lm_head"), 0u);
}

TEST(CtConfigTest, AnExpressionFitsFromTheStartOfTheName) {
  const auto schemes = Assign(
      Config({{"a", Group(4, 32, {R"(re:.*\.layers\.(0|7)\.self_attn\.)"})},
              {"b", Group(8, 0, {"re:model\\.layers\\.1\\..*proj$"})},
              {"c", Group(2, 64, {"re:layers.*", "re:.*layers.0.mlp.up"})}}));
  ASSERT_TRUE(schemes.ok()) << schemes.status();
  EXPECT_EQ(schemes->size(), 4u);
  EXPECT_EQ(schemes->at(kModules[0]), (CtScheme{4, 32}));
  EXPECT_EQ(schemes->at(kModules[1]), (CtScheme{2, 64}));
  EXPECT_EQ(schemes->at(kModules[2]), (CtScheme{8, 0}));
}

TEST(CtConfigTest, TheMoreExactTargetWins) {
  const auto schemes =
      Assign(Config({{"a", Group(4, 32, {"Linear", "Embedding"})},
                     {"b", Group(8, 32, {"re:.*up_proj"})},
                     {"c", Group(2, 64, {"model.layers.1.mlp.up_proj"})}}));
  ASSERT_TRUE(schemes.ok()) << schemes.status();
  EXPECT_EQ(schemes->at("model.embed_tokens"), (CtScheme{4, 32}));
  EXPECT_EQ(schemes->at(kModules[0]), (CtScheme{4, 32}));
  EXPECT_EQ(schemes->at(kModules[1]), (CtScheme{8, 32}));
  EXPECT_EQ(schemes->at(kModules[3]), (CtScheme{2, 64}));
}

TEST(CtConfigTest, IgnoreTakesExpressionsAndClasses) {
  json config = Config({{"a", Group(4, 32, {"Linear", "Embedding"})}});
  config["ignore"] = {"re:.*layers.1", "Embedding", "lm_head"};
  const auto schemes = Assign(config);
  ASSERT_TRUE(schemes.ok()) << schemes.status();
  EXPECT_EQ(schemes->size(), 2u);
}

TEST(CtConfigTest, GroupsThatOverlapOrNameNothingAreRefused) {
  ExpectRefused(Config({{"a", Group(4, 32, {"re:.*q_proj"})},
                        {"b", Group(8, 32, {"re:.*self_attn.*"})}}),
                "CORRUPT_FILE",
                "a and b both name model.layers.0.self_attn.q_proj");
  ExpectRefused(Config({{"a", Group(4, 32, {"Linear"})},
                        {"b", Group(8, 32, {"re:.*experts.*"})}}),
                "CORRUPT_FILE", "config group b names no module");
  ExpectRefused(Config({{"a", Group(4, 32, {"lm_head"})}}), "CORRUPT_FILE",
                "config group a names no module");
  // The same scheme twice is no contradiction.
  EXPECT_TRUE(Assign(Config({{"a", Group(4, 32, {"re:.*q_proj"})},
                             {"b", Group(4, 32, {"re:.*self_attn.*"})}}))
                  .ok());
}

TEST(CtConfigTest, WhatIsNotSupportedIsNamed) {
  const json good = Config({{"g", Group(4, 32, {"Linear"})}});
  ASSERT_TRUE(Assign(good).ok());
  const struct {
    const char* pointer;
    json value;
    const char* message;
  } cases[] = {
      {"/quant_method", "gptq", "found \"gptq\""},
      {"/kv_cache_scheme", {{"num_bits", 8}}, "kv_cache_scheme"},
      {"/transform_config", {{"config_groups", 1}}, "transform_config"},
      {"/sparsity_config", {{"format", "sparse-24"}}, "sparse-24"},
      {"/config_groups/g/format", "int-quantized", "int-quantized"},
      {"/config_groups/g/input_activations",
       {{"num_bits", 8}},
       "g.input_activations"},
      {"/config_groups/g/output_activations",
       {{"num_bits", 8}},
       "g.output_activations"},
      {"/config_groups/g/weights/num_bits", 3, "num_bits: found 3"},
      {"/config_groups/g/weights/num_bits", "4", "num_bits: found \"4\""},
      {"/config_groups/g/weights/type", "float", "found \"float\""},
      {"/config_groups/g/weights/symmetric", false, "symmetric: found false"},
      {"/config_groups/g/weights/dynamic", true, "dynamic: found true"},
      {"/config_groups/g/weights/actorder", "group", "found \"group\""},
      {"/config_groups/g/weights/actorder", true, "actorder: found true"},
      {"/config_groups/g/weights/strategy", "tensor", "found \"tensor\""},
      {"/config_groups/g/weights/strategy", "channel", "group size 32"},
      {"/config_groups/g/weights/block_structure", {1, 2}, "block_structure"},
      {"/config_groups/g/weights/surprise", 1, "surprise is not known"},
      {"/config_groups/g", json::array({"Linear"}), "preset"},
      {"/config_groups/g/targets", {"re:("}, "cannot be used"},
      {"/ignore", {"re:(?!x)"}, "cannot be used"},
  };
  for (const auto& test : cases) {
    json config = good;
    config[json::json_pointer(test.pointer)] = test.value;
    ExpectRefused(config, "UNSUPPORTED_QUANTIZATION", test.message);
  }
  json config = good;
  config["format"] = "mixed-precision";
  EXPECT_TRUE(Assign(config).ok());
  config["config_groups"]["g"]["weights"]["actorder"] = "weight";
  EXPECT_TRUE(Assign(config).ok());
  config["config_groups"]["g"].erase("format");
  ExpectRefused(config, "UNSUPPORTED_QUANTIZATION", "mixed-precision");
}

TEST(CtConfigTest, WhatIsNotAConfigIsRefused) {
  const json good = Config({{"g", Group(4, 32, {"Linear"})}});
  const struct {
    const char* pointer;
    json value;
    const char* message;
  } cases[] = {
      {"", 5, "quant_method"},
      {"", json::array(), "quant_method"},
      {"/config_groups", nullptr, "config_groups"},
      {"/config_groups", json::object(), "config_groups"},
      {"/config_groups", 7, "config_groups"},
      {"/config_groups/g", nullptr, "targets and weights"},
      {"/config_groups/g/weights", nullptr, "targets and weights"},
      {"/config_groups/g/weights", 4, "targets and weights"},
      {"/config_groups/g/targets", nullptr, "targets and weights"},
      {"/config_groups/g/targets", "Linear", "expected a list"},
      {"/config_groups/g/targets", {1}, "expected strings"},
      {"/config_groups/g/targets", json::array(), "names no module"},
      {"/config_groups/g/weights/group_size", "32", "expected a number"},
      {"/config_groups/g/weights/group_size", -5, "positive"},
      {"/config_groups/g/weights/group_size", nullptr, "positive"},
      {"/ignore", {{"a", 1}}, "ignore"},
      {"/sparsity_config", 3, "sparsity_config"},
  };
  for (const auto& test : cases) {
    json config = good;
    config[json::json_pointer(test.pointer)] = test.value;
    ExpectRefused(config, "CORRUPT_FILE", test.message);
  }
  json config = good;
  config.erase("format");
  config["config_groups"]["g"].erase("format");
  ExpectRefused(config, "CORRUPT_FILE", "format is missing");
  EXPECT_FALSE(CtConfig::Parse("{", "config.json").ok());
  config = good;
  config["ignore"] = std::vector<std::string>(30'000, "lm_head");
  ExpectRefused(config, "CORRUPT_FILE", "at most 20000");
}

// Such an expression takes a backtracking matcher exponential time.
TEST(CtConfigTest, ExpressionsTakeLinearTime) {
  json config = Config({{"g", Group(4, 32, {"re:(.*)*(.*)*(.*)*(.*)*x$"})}});
  ExpectRefused(config, "CORRUPT_FILE", "names no module");
}

}  // namespace
}  // namespace onegrid::model
