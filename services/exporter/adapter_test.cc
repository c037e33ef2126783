#include "services/exporter/adapter.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/safetensors.h"

namespace onegrid::exporter {
namespace {

constexpr int64_t kIn = 4;
constexpr int64_t kOut = 3;
// Ranks of q, k and v in layer 0 and of q in layer 1.
constexpr int64_t kRanks[] = {4, 2, 4, 8};

std::vector<uint8_t> Bytes(int64_t count, float first) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) {
    values.push_back(first + 0.1f * static_cast<float>(i));
  }
  std::vector<uint8_t> bytes(values.size() * sizeof(float));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

float At(absl::Span<const uint8_t> bytes, size_t i) {
  float value;
  std::memcpy(&value, bytes.data() + i * sizeof(float), sizeof(float));
  return value;
}

std::vector<model::LinearSpec> Specs() {
  std::vector<model::LinearSpec> specs;
  for (const char* kind : {"q", "k", "v"}) {
    specs.push_back({absl::StrCat("blk.0.attn_", kind, ".weight"),
                     absl::StrCat("model.layers.0.self_attn.", kind, "_proj"),
                     absl::StrCat(kind, "_proj"), 0, kOut, kIn});
  }
  specs.push_back({"blk.1.attn_q.weight", "model.layers.1.self_attn.q_proj",
                   "q_proj", 1, kOut, kIn});
  return specs;
}

absl::StatusOr<std::unique_ptr<Adapter>> Open(const std::string& config) {
  const std::string path = testing::TempDir() + "/adapter.safetensors";
  const std::string config_path = testing::TempDir() + "/adapter_config.json";
  const std::vector<model::LinearSpec> specs = Specs();
  model::SafetensorsWriter writer;
  for (size_t i = 0; i < specs.size(); ++i) {
    const std::string stem =
        absl::StrCat("base_model.model.", specs[i].hf_name, ".lora_");
    const float first = static_cast<float>(i + 1);
    EXPECT_TRUE(writer
                    .Add(stem + "A.weight", "F32", {kRanks[i], kIn},
                         Bytes(kRanks[i] * kIn, first))
                    .ok());
    EXPECT_TRUE(writer
                    .Add(stem + "B.weight", "F32", {kOut, kRanks[i]},
                         Bytes(kOut * kRanks[i], -first))
                    .ok());
  }
  EXPECT_TRUE(writer.WriteTo(path).ok());
  EXPECT_TRUE(common::WriteFileAtomic(config_path, config).ok());
  return Adapter::Open(path, config_path, specs);
}

constexpr char kRankPattern[] =
    R"("rank_pattern": {"k_proj": 2, "layers.1.self_attn.q_proj": 8})";

TEST(AdapterTest, PatternsGiveEachModuleItsRankAndScale) {
  const auto adapter = Open(absl::StrCat(
      R"({"r": 4, "lora_alpha": 8, "alpha_pattern": {"v_proj": 6}, )",
      kRankPattern, "}"));
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  const double scales[] = {8.0 / 4, 8.0 / 2, 6.0 / 4, 8.0 / 8};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ((*adapter)->pairs()[i].rank, kRanks[i]);
    EXPECT_EQ((*adapter)->pairs()[i].scale, scales[i]);
  }
  // Three of four pairs want an alpha of 8.
  EXPECT_EQ((*adapter)->gguf_alpha(), 8);
}

TEST(AdapterTest, LlamaCppsScaleTimesItsBIsPeftsScaleTimesB) {
  for (const char* options :
       {R"("use_rslora": false)", R"("use_rslora": true)",
        R"("use_rslora": true, "alpha_pattern": {"v_proj": 5})",
        R"("alpha_pattern": {"q_proj": 3, "v_proj": 5})"}) {
    const auto adapter = Open(absl::StrCat(R"({"r": 4, "lora_alpha": 8, )",
                                           options, ", ", kRankPattern, "}"));
    ASSERT_TRUE(adapter.ok()) << adapter.status();
    int same = 0;
    for (const AdapterPair& pair : (*adapter)->pairs()) {
      const std::vector<uint8_t> b = (*adapter)->GgufB(pair);
      ASSERT_EQ(b.size(), pair.b.size());
      same += std::memcmp(b.data(), pair.b.data(), b.size()) == 0;
      const float scale =
          (*adapter)->gguf_alpha() / static_cast<float>(pair.rank);
      for (size_t i = 0; i < b.size() / sizeof(float); ++i) {
        const double expected = pair.scale * At(pair.b, i);
        // One rounding of each of alpha, scale, factor times B.
        EXPECT_NEAR(scale * At(b, i), expected, 4e-7 * std::fabs(expected));
      }
    }
    EXPECT_GE(same, 1) << options;
  }
}

TEST(AdapterTest, RankStabilizedAdaptersOfOneRankKeepTheirB) {
  const auto adapter = Open(absl::StrCat(
      R"({"r": 4, "lora_alpha": 8, "use_rslora": true, )", kRankPattern, "}"));
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  // alpha sqrt(rank), of the two pairs of rank 4.
  EXPECT_EQ((*adapter)->gguf_alpha(), 16);
  const AdapterPair& pair = (*adapter)->pairs()[0];
  EXPECT_EQ(pair.scale, 4);
  const std::vector<uint8_t> b = (*adapter)->GgufB(pair);
  EXPECT_EQ(std::memcmp(b.data(), pair.b.data(), b.size()), 0);
}

TEST(AdapterTest, WhatCannotBeCarriedIsRefused) {
  for (const char* bad :
       {R"("use_dora": true)", R"("rank_pattern": {"k.*": 2})",
        R"("rank_pattern": {"k_proj": 0})", R"("rank_pattern": [1])",
        R"("rank_pattern": {"k_proj": 2.5})",
        R"("rank_pattern": {"k_proj": 1e300})",
        R"("alpha_pattern": {"v_proj": 1e-300})", R"("alpha_pattern": {"": 2})",
        R"("bias": "all")"}) {
    const auto adapter =
        Open(absl::StrCat(R"({"r": 4, "lora_alpha": 8, )", bad, "}"));
    EXPECT_EQ(common::ErrorReason(adapter.status()), "CORRUPT_FILE") << bad;
  }
  for (const char* bad :
       {R"({"r": 0, "lora_alpha": 8})", R"({"r": -4, "lora_alpha": 8})",
        R"({"r": 4, "lora_alpha": 0})", R"({"r": 4, "lora_alpha": 1e300})"}) {
    EXPECT_EQ(common::ErrorReason(Open(bad).status()), "CORRUPT_FILE") << bad;
  }
  const std::string deep =
      std::string(1000000, '[') + std::string(1000000, ']');
  EXPECT_EQ(common::ErrorReason(
                Open(absl::StrCat(R"({"r": 4, "lora_alpha": 8, "x": )", deep,
                                  ", ", kRankPattern, "}"))
                    .status()),
            "CORRUPT_FILE");
  // Ranks of the file that the config does not name.
  EXPECT_EQ(common::ErrorReason(Open(R"({"r": 4, "lora_alpha": 8})").status()),
            "CORRUPT_FILE");
}

}  // namespace
}  // namespace onegrid::exporter
