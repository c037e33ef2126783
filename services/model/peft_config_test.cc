#include "services/model/peft_config.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/model/gguf_test_file.h"

namespace onegrid::model {
namespace {

absl::StatusOr<PeftConfig> Read(const std::string& text) {
  return PeftConfig::Read(WriteTestFile("adapter_config.json", text));
}

// A good config with one more field.
absl::StatusOr<PeftConfig> ReadWith(const std::string& field) {
  return Read(absl::StrCat(R"({"r": 4, "lora_alpha": 8, )", field, "}"));
}

// peft 0.21's get_pattern_key gives the same ranks.
TEST(PeftConfigTest, PatternsFitAsPeftFitsThem) {
  const struct {
    const char* key;
    const char* module;
    bool fits;
  } cases[] = {
      {"q_proj", "model.layers.0.self_attn.q_proj", true},
      {"proj", "model.layers.0.self_attn.q_proj", false},
      {"self_attn.q_proj", "model.layers.0.self_attn.q_proj", true},
      {"^self_attn.q_proj", "model.layers.0.self_attn.q_proj", false},
      {"^model.layers.0.self_attn.q_proj$", "model.layers.0.self_attn.q_proj",
       true},
      {"layers\\\\.1\\\\..*", "model.layers.1.mlp.up_proj", true},
      {"layers\\\\.1\\\\..*", "model.layers.11.mlp.up_proj", false},
      {"layers.\\\\d+.mlp.up_proj", "model.layers.11.mlp.up_proj", true},
      {"layers.[0-9]+.mlp.up_proj", "model.layers.11.mlp.up_proj", true},
      {"layers.\\\\d+.mlp.up_proj", "model.layers.x.mlp.up_proj", false},
      {".*_proj", "model.layers.0.self_attn.q_proj", true},
      {"model.language_model.layers.0.mlp.up_proj",
       "model.language_model.layers.0.mlp.up_proj", true},
  };
  for (const auto& c : cases) {
    const auto config =
        ReadWith(absl::StrCat(R"("rank_pattern": {")", c.key, R"(": 2})"));
    ASSERT_TRUE(config.ok()) << c.key << ": " << config.status();
    EXPECT_EQ(config->RankOf(c.module), c.fits ? 2 : 4) << c.key;
    EXPECT_EQ(config->AlphaOf(c.module), 8);
  }
}

TEST(PeftConfigTest, TheFirstPatternOfTheFileCounts) {
  const auto config =
      ReadWith(R"("alpha_pattern": {"v_proj": 6, "layers.0.*": 3})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->AlphaOf("layers.0.v_proj"), 6);
  EXPECT_EQ(config->AlphaOf("layers.0.q_proj"), 3);
  EXPECT_EQ(config->AlphaOf("layers.1.q_proj"), 8);
}

TEST(PeftConfigTest, FieldsThatAreOffOrHarmlessArePassed) {
  const auto config = ReadWith(
      R"("peft_type": "LORA", "bias": "none", "use_dora": false,
         "modules_to_save": null, "layer_replication": null, "lora_bias": false,
         "init_lora_weights": "gaussian", "fan_in_fan_out": true,
         "use_rslora": null, "rank_pattern": {}, "runtime_config": {"x": 1})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->use_rslora());
  EXPECT_TRUE(ReadWith(R"("use_rslora": true)")->use_rslora());
}

TEST(PeftConfigTest, WhatChangesTheMeaningIsRefusedByName) {
  const std::pair<const char*, const char*> fields[] = {
      {"use_dora", "true"},
      {"bias", R"("all")"},
      {"lora_bias", "true"},
      {"modules_to_save", R"(["lm_head"])"},
      {"trainable_token_indices", "[1]"},
      {"target_parameters", R"(["experts.down_proj"])"},
      {"layer_replication", "[[0, 1]]"},
      {"alora_invocation_tokens", "[1]"},
      {"use_qalora", "true"},
      {"peft_type", R"("LOHA")"},
      {"init_lora_weights", R"("pissa_niter_4")"},
      {"init_lora_weights", R"("olora")"},
      {"rank_pattern", R"({"k[12]_proj": 2})"},
      {"rank_pattern", R"({"(q|k)_proj": 2})"},
      {"rank_pattern", R"({"k.?proj": 2})"},
      {"rank_pattern", R"({"k_*": 2})"},
      // A regular expression would give digits back.
      {"alpha_pattern", R"({"layers\\.1\\d+\\..*": 2})"},
      {"alpha_pattern", R"({"layers\\.[0-9]+1\\..*": 2})"},
      {"alpha_pattern", R"({"layers\\.\\d+[0-9]+\\..*": 2})"},
      {"alpha_pattern", R"({"": 2})"},
      {"alpha_pattern", R"({"k{2}": 2})"},
  };
  for (const auto& [field, value] : fields) {
    const absl::Status status =
        ReadWith(absl::StrCat("\"", field, "\": ", value)).status();
    EXPECT_EQ(common::ErrorReason(status), "UNSUPPORTED_ADAPTER")
        << field << value;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(field), std::string::npos) << status;
  }
}

TEST(PeftConfigTest, AbsurdlyLongFilesAreNotRead) {
  const std::string spaces(size_t{1} << 20, ' ');
  const absl::Status status =
      ReadWith(absl::StrCat(R"("x":)", spaces, "1")).status();
  EXPECT_EQ(common::ErrorReason(status), "CORRUPT_FILE");
  EXPECT_NE(status.message().find("1048576"), std::string::npos) << status;
}

TEST(PeftConfigTest, NumbersOutOfRangeAreCorrupt) {
  for (const char* field :
       {R"("rank_pattern": {"k_proj": 0})", R"("rank_pattern": [1])",
        R"("rank_pattern": {"k_proj": 2.5})",
        R"("rank_pattern": {"k_proj": 1e300})",
        R"("rank_pattern": {"k_proj": 1099511627776})",
        R"("alpha_pattern": {"v_proj": 1e-300})",
        R"("alpha_pattern": {"v_proj": "8"})",
        R"("alpha_pattern": {"v_proj": NaN})",
        R"("alpha_pattern": {"v_proj": {"v_proj": 8}})",
        R"("use_rslora": "yes")"}) {
    EXPECT_EQ(common::ErrorReason(ReadWith(field).status()), "CORRUPT_FILE")
        << field;
  }
  for (const char* text :
       {"", "[", "[]", "{}", R"({"lora_alpha": 8})", R"({"r": 4})",
        R"({"r": 0, "lora_alpha": 8})", R"({"r": -4, "lora_alpha": 8})",
        R"({"r": 1099511627776, "lora_alpha": 8})",
        R"({"r": "4", "lora_alpha": 8})", R"({"r": 4, "lora_alpha": "8"})",
        R"({"r": 4, "lora_alpha": 0})", R"({"r": 4, "lora_alpha": -8})",
        R"({"r": 4, "lora_alpha": 1e300})",
        R"({"r": 4, "lora_alpha": null})"}) {
    EXPECT_EQ(common::ErrorReason(Read(text).status()), "CORRUPT_FILE") << text;
  }
}

TEST(PeftConfigTest, DeepNestingIsCorrupt) {
  const std::string deep =
      std::string(1000000, '[') + std::string(1000000, ']');
  for (const char* field : {"x", "alpha_pattern", "modules_to_save"}) {
    EXPECT_EQ(common::ErrorReason(
                  ReadWith(absl::StrCat("\"", field, "\": ", deep)).status()),
              "CORRUPT_FILE")
        << field;
  }
}

}  // namespace
}  // namespace onegrid::model
