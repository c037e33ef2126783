#include "services/model/gemma_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <string>

#include "kernels/quant/ggml_types.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/model/gemma_limits.h"
#include "services/model/gguf_test_file.h"
#include "services/model/hf_model_config.h"
#include "services/model/tensor_names.h"

namespace onegrid::model {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<GemmaConfig> ConfigOf(const GgufWriter& writer) {
  const std::string path = WriteTestFile("config.gguf", "");
  EXPECT_TRUE(writer.WriteTo(path).ok());
  const auto file = GgufFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  return ConfigFromGguf(**file);
}

void ExpectRefused(const GgufWriter& writer, const std::string& message,
                   const std::string& reason) {
  const auto config = ConfigOf(writer);
  ASSERT_FALSE(config.ok()) << "expected: " << message;
  EXPECT_THAT(std::string(config.status().message()), HasSubstr(message));
  EXPECT_EQ(common::ErrorReason(config.status()), reason);
}

TEST(Gemma3ConfigTest, ReadsEveryField) {
  const auto config = ConfigOf(TinyGemma3());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->vocab_size, kTinyFirstNormal + 256);
  EXPECT_EQ(config->hidden, 8);
  EXPECT_EQ(config->layers[1].ff, 12);
  EXPECT_EQ(config->layer_count(), 2);
  EXPECT_EQ(config->heads, 4);
  EXPECT_EQ(config->layers[0].kv_heads, 2);
  EXPECT_EQ(config->layers[0].head_dim, 2);
  EXPECT_EQ(config->sliding_window, 4);
  EXPECT_EQ(config->context_length, 64);
  EXPECT_FLOAT_EQ(config->rms_eps, 1e-6);
  EXPECT_EQ(config->rope_theta_global, 1e6);
  EXPECT_EQ(config->rope_theta_local, 1e4);
  EXPECT_EQ(config->rope_scaling_factor, 1.0);
  EXPECT_DOUBLE_EQ(config->attention_scale, 1 / std::sqrt(2.0));
  EXPECT_EQ(config->eos_token_id, 1);
}

TEST(Gemma3ConfigTest, SixthLayersAreGlobalUnlessTheFileSaysOtherwise) {
  auto config = ConfigOf(TinyGemma3());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->IsGlobalLayer(0));
  EXPECT_FALSE(config->IsGlobalLayer(1));
  const auto layers = UniformLayers(12, kDefaultPattern, {});
  EXPECT_FALSE(layers[4].global);
  EXPECT_TRUE(layers[5].global);
  EXPECT_TRUE(layers[11].global);
  GgufWriter writer = TinyGemma3();
  writer.Set("gemma3.attention.sliding_window_pattern", uint32_t{2});
  config = ConfigOf(writer);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->IsGlobalLayer(0));
  EXPECT_TRUE(config->IsGlobalLayer(1));
}

TEST(Gemma3ConfigTest, ReadsRopeScalingAndNumbersGivenPerLayer) {
  GgufWriter writer = TinyGemma3();
  writer.Set("gemma3.rope.scaling.type", std::string("linear"));
  writer.Set("gemma3.rope.scaling.factor", 8.0f);
  writer.Set("gemma3.rope.freq_base_swa", 5000.0f);
  writer.Set("gemma3.attention.head_count_kv", std::vector<int32_t>{2, 2});
  const auto config = ConfigOf(writer);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope_scaling_factor, 8.0);
  EXPECT_EQ(config->rope_theta_local, 5000.0);
  EXPECT_EQ(config->layers[0].kv_heads, 2);
  writer.Set("gemma3.rope.scaling.type", std::string("yarn"));
  ExpectRefused(writer, "found 'yarn'", "UNSUPPORTED_ARCHITECTURE");
}

TEST(Gemma3ConfigTest, OtherArchitecturesNameFoundAndSupported) {
  GgufWriter writer = TinyGemma3();
  writer.Set("general.architecture", std::string("llama"));
  const auto config = ConfigOf(writer);
  EXPECT_EQ(config.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(config.status().message()),
              HasSubstr("found 'llama', supported: gemma3, gemma4"));
  const auto metadata = common::ErrorMetadata(config.status());
  EXPECT_EQ(metadata.at("found"), "llama");
  EXPECT_EQ(metadata.at("supported"), "gemma3, gemma4");
}

TEST(Gemma3ConfigTest, MissingKeyAndWrongValuesAreNamed) {
  GgufWriter bare;
  bare.Set("general.architecture", std::string("gemma3"));
  ExpectRefused(bare, "'gemma3.embedding_length' is missing", "CORRUPT_FILE");
  const auto with = [](const char* key, GgufValue value) {
    GgufWriter writer = TinyGemma3();
    writer.Set(key, std::move(value));
    return writer;
  };
  ExpectRefused(with("gemma3.block_count", uint32_t{0}),
                "gemma3.block_count: expected 1 to 1024, found 0",
                "CORRUPT_FILE");
  ExpectRefused(with("gemma3.block_count", uint32_t{1u << 31}), "found 2147483",
                "CORRUPT_FILE");
  ExpectRefused(with("gemma3.attention.head_count", uint32_t{3}),
                "not a multiple", "CORRUPT_FILE");
  ExpectRefused(with("gemma3.rope.freq_base", std::string("x")),
                "expected f32, found string", "CORRUPT_FILE");
  ExpectRefused(with("gemma3.attention.layer_norm_rms_epsilon", -1.0f),
                "expected a positive number", "CORRUPT_FILE");
  ExpectRefused(with("tokenizer.ggml.bos_token_id", uint32_t{9999}),
                "expected a token below", "CORRUPT_FILE");
}

TEST(Gemma3ConfigTest, MissingAndMisshapenTensorsAreNamed) {
  GgufWriter writer = TinyGemma3();
  writer.Set("gemma3.block_count", uint32_t{3});
  ExpectRefused(writer, "tensor 'blk.2.attn_q.weight' is missing",
                "CORRUPT_FILE");
  writer = TinyGemma3();
  writer.Set("gemma3.feed_forward_length", uint32_t{16});
  ExpectRefused(writer,
                "tensor 'blk.0.ffn_gate.weight': expected dimensions 8 x 16, "
                "found 8 x 12",
                "CORRUPT_FILE");
}

TEST(Gemma3ConfigTest, OutputWeightIsAHeadOfItsOwn) {
  const auto with_head = [](int64_t width) {
    GgufWriter writer = TinyGemma3();
    const int64_t tokens = kTinyFirstNormal + 256;
    EXPECT_TRUE(
        writer
            .AddTensor(kGgufHead, quant::GgmlType::kF32, {width, tokens},
                       std::vector<uint8_t>(width * tokens * sizeof(float)))
            .ok());
    return writer;
  };
  EXPECT_TRUE(ConfigOf(TinyGemma3())->tied_head);
  const auto config = ConfigOf(with_head(8));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->tied_head);
  EXPECT_EQ(GemmaLinears(*config).back().hf_name, "lm_head");
  const auto json =
      nlohmann::json::parse(*HfConfigJson(*config, "float32", ""));
  EXPECT_EQ(json["tie_word_embeddings"], false);
  EXPECT_FALSE(ConfigFromHfJson(json.dump(), "config.json")->tied_head);
  ExpectRefused(with_head(4), "tensor 'output.weight': expected dimensions 8 x",
                "CORRUPT_FILE");
}

TEST(Gemma3ConfigTest, HfConfigHoldsTheSameModel) {
  auto config = ConfigOf(TinyGemma3());
  ASSERT_TRUE(config.ok()) << config.status();
  config->rope_scaling_factor = 8;
  const auto text =
      HfConfigJson(*config, "float32", "{\"quant_method\":\"x\"}");
  ASSERT_TRUE(text.ok()) << text.status();
  const auto json = nlohmann::json::parse(*text);
  EXPECT_EQ(json["architectures"][0], "Gemma3ForCausalLM");
  EXPECT_EQ(json["hidden_size"], 8);
  EXPECT_EQ(json["rms_norm_eps"].dump(), "1e-06");
  EXPECT_EQ(json["query_pre_attn_scalar"], 2);
  EXPECT_EQ(json["layer_types"][1], "sliding_attention");
  EXPECT_EQ(json["rope_parameters"]["full_attention"]["factor"], 8);
  EXPECT_FALSE(json["rope_parameters"]["sliding_attention"].contains("factor"));
  EXPECT_EQ(json["quantization_config"]["quant_method"], "x");
  EXPECT_EQ(json["tie_word_embeddings"], true);
  EXPECT_FALSE(HfConfigJson(*config, "float32", "[]").ok());
}

TEST(TensorNamesTest, NamesFollowBothConventions) {
  GemmaConfig config;
  config.hidden = 640;
  config.layers =
      UniformLayers(18, 6, {.head_dim = 256, .kv_heads = 1, .ff = 2048});
  config.heads = 4;
  const auto linears = GemmaLinears(config);
  ASSERT_EQ(linears.size(), 18u * 7);
  EXPECT_EQ(linears[10].gguf_name, "blk.1.attn_output.weight");
  EXPECT_EQ(linears[10].hf_name, "model.layers.1.self_attn.o_proj");
  EXPECT_EQ(linears[10].kind, "o_proj");
  EXPECT_EQ(linears[10].out, 640);
  EXPECT_EQ(linears[10].in, 1024);
  EXPECT_EQ(linears[1].out, 256);
  const auto norms = GemmaNorms(config);
  ASSERT_EQ(norms.size(), 18u * 6 + 1);
  EXPECT_EQ(norms[2].gguf_name, "blk.0.attn_k_norm.weight");
  EXPECT_EQ(norms[2].hf_name, "model.layers.0.self_attn.k_norm.weight");
  EXPECT_EQ(norms[2].size, 256);
  EXPECT_EQ(norms.back().hf_name, "model.norm.weight");
}

}  // namespace
}  // namespace onegrid::model
