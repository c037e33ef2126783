#include "services/model/tuning_memory.h"

#include <cstdint>

#include "gtest/gtest.h"
#include "services/model/gemma_config.h"

namespace onegrid::model {
namespace {

GemmaConfig Gemma3Of270M() {
  GemmaConfig config;
  config.vocab_size = 262144;
  config.hidden = 640;
  config.heads = 4;
  config.layers =
      UniformLayers(18, 6, {.head_dim = 256, .kv_heads = 1, .ff = 2048});
  config.sliding_window = 512;
  config.context_length = 32768;
  return config;
}

int64_t More(const GemmaConfig& config, const TuningShape& shape = {}) {
  return TuningBytes(config, shape) - TuningBytes(Gemma3Of270M(), shape);
}

// The rule of tuning_memory.h, computed apart from this program in Python.
TEST(TuningMemoryTest, CountsWeightsCodesStatesAndActivations) {
  const GemmaConfig config = Gemma3Of270M();
  constexpr int64_t kRounding = 2;
  EXPECT_NEAR(TuningBytes(config, {}), 4711798291, kRounding);
  EXPECT_NEAR(TuningBytes(config, {.bf16 = true}), 4213043116, kRounding);
  EXPECT_NEAR(TuningBytes(config, {.sequence_tokens = 256, .bf16 = true}),
              3469864876, kRounding);
}

TEST(TuningMemoryTest, GrowsWithWhatGemma4Has) {
  GemmaConfig config = Gemma3Of270M();
  config.logit_softcap = 30;
  EXPECT_NEAR(More(config), 1.05 * 64 * 262144 * 4, 2);

  config = Gemma3Of270M();
  config.per_layer_width = 64;
  // The table's codes, and its blocks in the file.
  EXPECT_GT(More(config), int64_t{262144} * 18 * 64 * 2);

  config = Gemma3Of270M();
  config.experts = 8;
  config.experts_used = 2;
  config.expert_ff = 256;
  // Two copies in float32, three of the codes, and the scales' training.
  const int64_t experts = int64_t{18} * 8 * 3 * 256 * 640;
  EXPECT_GT(More(config, {.sequence_tokens = 0}), experts * (8 + 3));
  EXPECT_LT(More(config, {.sequence_tokens = 0}), experts * 14);
  EXPECT_GT(More(config), More(config, {.sequence_tokens = 0}));
}

TEST(TuningMemoryTest, AttentionToOthersKeysHasNone) {
  GemmaConfig config = Gemma3Of270M();
  ASSERT_TRUE(ShareKv(6, config.layers));
  EXPECT_LT(More(config), 0);
}

}  // namespace
}  // namespace onegrid::model
