// Gemma 4's configurations and tensor lists: what is written to GGUF metadata
// and to config.json is read as the same, and what is wrong is named.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/model/gemma_config.h"
#include "services/model/gguf_test_file.h"
#include "services/model/gguf_writer.h"
#include "services/model/hf_model_config.h"
#include "services/model/tensor_names.h"

namespace onegrid::model {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// As E2B: own inputs, keys of earlier layers, a wider MLP behind.
GemmaConfig Edge() {
  GemmaConfig config;
  config.family = GemmaFamily::kGemma4;
  config.vocab_size = 272;
  config.hidden = 8;
  config.heads = 4;
  config.layers = UniformLayers(6, 3, {.head_dim = 4, .kv_heads = 2, .ff = 12});
  for (GemmaLayer& layer : config.layers) {
    if (layer.global) layer.head_dim = 8;
  }
  ShareKv(3, config.layers);
  for (int64_t i = 3; i < 6; ++i) config.layers[i].ff = 24;
  config.sliding_window = 4;
  config.context_length = 64;
  config.rope_global_pairs = 1;
  config.attention_scale = 1;
  config.logit_softcap = 30;
  config.per_layer_width = 2;
  return config;
}

// As 26B-A4B: experts, values that are keys.
GemmaConfig Experts() {
  GemmaConfig config = Edge();
  config.layers = UniformLayers(3, 3, {.head_dim = 4, .kv_heads = 2, .ff = 12});
  config.layers[2].head_dim = 8;
  config.layers[2].kv_heads = 1;
  config.layers[2].value_is_key = true;
  config.per_layer_width = 0;
  config.experts = 5;
  config.experts_used = 2;
  config.expert_ff = 3;
  return config;
}

void ExpectSame(const GemmaConfig& a, const GemmaConfig& b) {
  EXPECT_EQ(a.family, b.family);
  EXPECT_EQ(a.vocab_size, b.vocab_size);
  EXPECT_EQ(a.hidden, b.hidden);
  EXPECT_EQ(a.heads, b.heads);
  EXPECT_TRUE(a.layers == b.layers);
  EXPECT_EQ(a.sliding_window, b.sliding_window);
  EXPECT_EQ(a.context_length, b.context_length);
  EXPECT_EQ(a.rope_global_pairs, b.rope_global_pairs);
  EXPECT_EQ(a.attention_scale, b.attention_scale);
  EXPECT_EQ(a.logit_softcap, b.logit_softcap);
  EXPECT_EQ(a.per_layer_width, b.per_layer_width);
  EXPECT_EQ(a.experts, b.experts);
  EXPECT_EQ(a.experts_used, b.experts_used);
  EXPECT_EQ(a.expert_ff, b.expert_ff);
}

void Add(const std::string& name, const std::vector<int64_t>& dims,
         GgufWriter& writer, const std::vector<float>& values = {}) {
  int64_t count = 1;
  for (const int64_t size : dims) count *= size;
  std::vector<float> data = values;
  data.resize(count);
  const auto* bytes = reinterpret_cast<const uint8_t*>(data.data());
  ASSERT_TRUE(writer
                  .AddTensor(name, quant::GgmlType::kF32, dims,
                             std::vector<uint8_t>(
                                 bytes, bytes + data.size() * sizeof(float)))
                  .ok());
}

// A file of zeros; tensors named `without` left out.
GgufWriter FileOf(const GemmaConfig& config, const std::string& without = "",
                  const std::vector<float>& rope_factors = {}) {
  GgufWriter writer;
  for (const auto& [key, value] : GemmaMetadata(config)) {
    writer.Set(key, value);
  }
  for (const TableSpec& spec : GemmaTables(config)) {
    Add(spec.gguf_name, {spec.cols, spec.rows}, writer);
  }
  for (const LinearSpec& spec : GemmaLinears(config)) {
    if (spec.gguf_name == without) continue;
    Add(spec.gguf_name, spec.GgufDims(), writer);
  }
  for (const NormSpec& spec : GemmaNorms(config)) {
    std::vector<float> values;
    if (spec.gguf_name == kGgufRopeFactors) {
      values = rope_factors.empty() ? RopeFactors(config) : rope_factors;
    }
    Add(spec.gguf_name, spec.GgufDims(), writer, values);
  }
  return writer;
}

absl::StatusOr<GemmaConfig> ConfigOf(const GgufWriter& writer) {
  const std::string path = WriteTestFile("gemma4.gguf", "");
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

TEST(Gemma4ConfigTest, MetadataIsReadAsTheSameConfiguration) {
  for (const GemmaConfig& expected : {Edge(), Experts()}) {
    const auto config = ConfigOf(FileOf(expected));
    ASSERT_TRUE(config.ok()) << config.status();
    ExpectSame(*config, expected);
  }
}

TEST(Gemma4ConfigTest, ConfigJsonIsReadAsTheSameConfiguration) {
  for (const GemmaConfig& expected : {Edge(), Experts()}) {
    const auto text = HfConfigJson(expected, "float32", "");
    ASSERT_TRUE(text.ok()) << text.status();
    const auto config = ConfigFromHfJson(*text, "config.json");
    ASSERT_TRUE(config.ok()) << config.status();
    ExpectSame(*config, expected);
  }
}

TEST(Gemma4ConfigTest, ReadsGlobalHeadsInTheOlderForm) {
  json old = json::parse(*HfConfigJson(Experts(), "float32", ""));
  old.erase("per_layer_config");
  old["global_head_dim"] = 8;
  old["num_global_key_value_heads"] = 1;
  const auto config = ConfigFromHfJson(old.dump(), "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  ExpectSame(*config, Experts());
}

TEST(Gemma4ConfigTest, WhatConfigJsonHasNoWordForIsRefused) {
  GemmaConfig config = Edge();
  config.layers[1].ff = 16;
  EXPECT_EQ(common::ErrorReason(HfConfigJson(config, "float32", "").status()),
            "UNSUPPORTED_ARCHITECTURE");
  config = Edge();
  config.layers[5].global = false;
  EXPECT_FALSE(HfConfigJson(config, "float32", "").ok());
}

TEST(Gemma4ConfigTest, WrongMetadataIsNamed) {
  GgufWriter writer = FileOf(Edge());
  writer.Set("gemma4.attention.sliding_window_pattern",
             std::vector<bool>{true, false});
  ExpectRefused(writer, "expected 6 booleans", "CORRUPT_FILE");
  writer = FileOf(Edge());
  writer.Set("gemma4.attention.shared_kv_layers", uint32_t{6});
  ExpectRefused(writer, "leaves no layer", "CORRUPT_FILE");
  writer = FileOf(Edge());
  writer.Set("gemma4.feed_forward_length", std::vector<int32_t>{1, 2});
  ExpectRefused(writer, "expected 6 numbers", "CORRUPT_FILE");
  writer = FileOf(Edge());
  writer.Set("gemma4.final_logit_softcapping", -1.0f);
  ExpectRefused(writer, "final_logit_softcapping", "CORRUPT_FILE");
  writer = FileOf(Experts());
  writer.Set("gemma4.expert_used_count", uint32_t{6});
  ExpectRefused(writer, "expert_used_count: expected 1 to 5", "CORRUPT_FILE");
  writer = FileOf(Edge());
  writer.Set("gemma4.rope.scaling.type", std::string("linear"));
  ExpectRefused(writer, "rope.scaling.type", "UNSUPPORTED_ARCHITECTURE");
}

TEST(Gemma4ConfigTest, MissingTensorsAreNamed) {
  // A sliding layer has values of its own.
  ExpectRefused(FileOf(Edge(), "blk.0.attn_v.weight"),
                "'blk.0.attn_v.weight' is missing", "CORRUPT_FILE");
  ExpectRefused(FileOf(Edge(), "per_layer_model_proj.weight"),
                "'per_layer_model_proj.weight' is missing", "CORRUPT_FILE");
  ExpectRefused(FileOf(Experts(), "blk.1.ffn_down_exps.weight"),
                "'blk.1.ffn_down_exps.weight' is missing", "CORRUPT_FILE");
  // Factors other than one and never.
  ExpectRefused(FileOf(Edge(), "", {1, 2, 4, 8}), "'rope_freqs.weight'",
                "UNSUPPORTED_ARCHITECTURE");
}

TEST(Gemma4ConfigTest, WrongConfigJsonIsNamed) {
  const struct {
    const char* key;
    json value;
    const char* reason;
  } changes[] = {
      {"per_layer_config", {{"9", {{"head_dim", 8}}}}, "CORRUPT_FILE"},
      {"per_layer_config", {{"x", {{"head_dim", 8}}}}, "CORRUPT_FILE"},
      {"per_layer_config", 3, "CORRUPT_FILE"},
      {"per_layer_config",
       {{"2", {{"intermediate_size", 8}}}},
       "UNSUPPORTED_ARCHITECTURE"},
      {"num_kv_shared_layers", 6, "CORRUPT_FILE"},
      {"vocab_size_per_layer_input", 5, "UNSUPPORTED_ARCHITECTURE"},
      {"layer_types", {"chunked_attention"}, "CORRUPT_FILE"},
      {"use_bidirectional_attention", "all", "UNSUPPORTED_ARCHITECTURE"},
  };
  for (const auto& change : changes) {
    json config = json::parse(*HfConfigJson(Edge(), "float32", ""));
    config[change.key] = change.value;
    const auto status = ConfigFromHfJson(config.dump(), "c.json").status();
    EXPECT_EQ(common::ErrorReason(status), change.reason)
        << change.key << " " << change.value << " " << status;
  }
}

TEST(Gemma4TensorsTest, ListsFollowTheLayers) {
  const GemmaConfig config = Edge();
  std::vector<std::string> last;
  for (const LinearSpec& spec : GemmaLinears(config)) {
    if (spec.layer == 5) last.push_back(spec.gguf_name);
  }
  EXPECT_EQ(last, (std::vector<std::string>{
                      "blk.5.attn_q.weight", "blk.5.attn_output.weight",
                      "blk.5.ffn_gate.weight", "blk.5.ffn_up.weight",
                      "blk.5.ffn_down.weight", "blk.5.inp_gate.weight",
                      "blk.5.proj.weight"}));
  EXPECT_EQ(GemmaTables(config).size(), 2u);
  EXPECT_EQ(GemmaLinears(config).back().layer, -1);
  EXPECT_TRUE(IsUnusedKv(config, "blk.3.attn_k.weight"));
  EXPECT_TRUE(IsUnusedKv(config, "model.layers.4.self_attn.v_proj.weight"));
  EXPECT_FALSE(IsUnusedKv(config, "blk.2.attn_k.weight"));
  EXPECT_FALSE(IsUnusedKv(config, "blk.3.attn_q.weight"));
  for (const LinearSpec& spec : GemmaLinears(Experts())) {
    if (spec.gguf_name != "blk.0.ffn_gate_up_exps.weight") continue;
    EXPECT_EQ(spec.GgufDims(), (std::vector<int64_t>{8, 6, 5}));
    EXPECT_EQ(spec.HfShape(), (std::vector<int64_t>{5, 6, 8}));
    EXPECT_EQ(spec.HfWeightName(), "model.layers.0.experts.gate_up_proj");
  }
}

}  // namespace
}  // namespace onegrid::model
