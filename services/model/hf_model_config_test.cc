#include "services/model/hf_model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/model/gguf_reader.h"
#include "services/model/gguf_test_file.h"
#include "services/model/gguf_writer.h"

namespace onegrid::model {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// Numbers of a 4B-like model, none the default of its field.
GemmaConfig Sample() {
  GemmaConfig config;
  config.vocab_size = 272;
  config.hidden = 8;
  config.layers = UniformLayers(2, 2, {.head_dim = 2, .kv_heads = 2, .ff = 12});
  config.heads = 4;
  config.sliding_window = 4;
  config.context_length = 64;
  config.rms_eps = 1e-5;
  config.rope_theta_global = 2e6;
  config.rope_theta_local = 5e3;
  config.rope_scaling_factor = 8;
  config.attention_scale = 1 / std::sqrt(2.0);
  return config;
}

json SampleJson() {
  return json::parse(*HfConfigJson(Sample(), "bfloat16", ""));
}

void ExpectSame(const GemmaConfig& a, const GemmaConfig& b) {
  EXPECT_EQ(a.vocab_size, b.vocab_size);
  EXPECT_EQ(a.hidden, b.hidden);
  EXPECT_EQ(a.family, b.family);
  EXPECT_TRUE(a.layers == b.layers);
  EXPECT_EQ(a.heads, b.heads);
  EXPECT_EQ(a.sliding_window, b.sliding_window);
  EXPECT_EQ(a.context_length, b.context_length);
  EXPECT_FLOAT_EQ(a.rms_eps, b.rms_eps);
  EXPECT_EQ(a.rope_theta_global, b.rope_theta_global);
  EXPECT_EQ(a.rope_theta_local, b.rope_theta_local);
  EXPECT_EQ(a.rope_scaling_factor, b.rope_scaling_factor);
  EXPECT_DOUBLE_EQ(a.attention_scale, b.attention_scale);
  EXPECT_EQ(a.bos_token_id, b.bos_token_id);
  EXPECT_EQ(a.eos_token_id, b.eos_token_id);
  EXPECT_EQ(a.pad_token_id, b.pad_token_id);
}

TEST(HfModelConfigTest, ReadsWhatIsWritten) {
  const auto config = ConfigFromHfJson(SampleJson().dump(), "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  ExpectSame(*config, Sample());
}

TEST(HfModelConfigTest, ReadsTheOlderForm) {
  json old = SampleJson();
  old.erase("rope_parameters");
  old.erase("layer_types");
  old["rope_theta"] = 2e6;
  old["rope_local_base_freq"] = 5e3;
  old["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8.0}};
  old["_sliding_window_pattern"] = 2;
  old["eos_token_id"] = {1, 106};
  const auto config = ConfigFromHfJson(old.dump(), "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  ExpectSame(*config, Sample());
}

TEST(HfModelConfigTest, MetadataIsReadAsTheSameConfiguration) {
  GgufWriter writer = TinyGemma3();
  for (const auto& [key, value] : GemmaMetadata(Sample())) {
    writer.Set(key, value);
  }
  const std::string path = WriteTestFile("metadata.gguf", "");
  ASSERT_TRUE(writer.WriteTo(path).ok());
  const auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto config = ConfigFromGguf(**file);
  ASSERT_TRUE(config.ok()) << config.status();
  ExpectSame(*config, Sample());
}

struct Change {
  const char* key;
  json value;
};

TEST(HfModelConfigTest, OtherModelsAreUnsupported) {
  const Change changes[] = {
      {"architectures", {"Gemma3ForConditionalGeneration"}},
      {"architectures", nullptr},
      {"architectures", 5},
      {"final_logit_softcapping", 30.0},
      {"quantization_config", json::object()},
      {"attention_bias", true},
      {"hidden_activation", "silu"},
      {"query_pre_attn_scalar", 7},
      {"layer_types", {"full_attention", "sliding_attention"}},
  };
  for (const Change& change : changes) {
    json config = SampleJson();
    config[change.key] = change.value;
    const auto status = ConfigFromHfJson(config.dump(), "c.json").status();
    EXPECT_EQ(common::ErrorReason(status), "UNSUPPORTED_ARCHITECTURE")
        << change.key << " " << change.value;
  }
}

TEST(HfModelConfigTest, NestingThatMessagesCannotWriteIsCorrupt) {
  std::string text = SampleJson().dump();
  const std::string deep =
      std::string(1000000, '[') + std::string(1000000, ']');
  text.replace(text.find("[\"Gemma3ForCausalLM\"]"), 21, deep);
  const auto status = ConfigFromHfJson(text, "c.json").status();
  EXPECT_EQ(common::ErrorReason(status), "CORRUPT_FILE");
  EXPECT_THAT(std::string(status.message()), HasSubstr("c.json: nested"));
}

TEST(HfModelConfigTest, BadValuesAreCorruptAndNamed) {
  const Change changes[] = {
      {"vocab_size", 0},
      {"vocab_size", 1e9},
      {"hidden_size", "640"},
      {"hidden_size", -1},
      {"num_hidden_layers", 4294967296},
      {"num_key_value_heads", 3},
      {"head_dim", nullptr},
      {"rms_norm_eps", 0},
      {"rope_parameters", 3},
      {"rope_parameters", {{"full_attention", 1}}},
      {"layer_types", {"full_attention"}},
      {"layer_types", "full_attention"},
      {"bos_token_id", 272},
      {"eos_token_id", json::array()},
  };
  for (const Change& change : changes) {
    json config = SampleJson();
    config[change.key] = change.value;
    const auto status = ConfigFromHfJson(config.dump(), "c.json").status();
    EXPECT_EQ(common::ErrorReason(status), "CORRUPT_FILE")
        << change.key << " " << change.value << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("c.json"));
  }
  for (const char* text : {"", "[]", "{", "null", "\xff"}) {
    EXPECT_EQ(common::ErrorReason(ConfigFromHfJson(text, "c.json").status()),
              "CORRUPT_FILE");
  }
}

}  // namespace
}  // namespace onegrid::model
