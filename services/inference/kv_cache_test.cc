#include "services/inference/kv_cache.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/random_floats.h"
#include "kernels/base/thread_pool.h"
#include "services/inference/numerics.h"
#include "services/model/gemma_config.h"

namespace onegrid::inference {
namespace {

constexpr int kSlots = 5;
constexpr int kTokens = 70;  // More than a page of 64.
constexpr int64_t kHeads = 4, kKvHeads = 2, kHeadDim = 32;
constexpr int64_t kWidth = kKvHeads * kHeadDim;

model::GemmaConfig Config() {
  model::GemmaConfig config;
  config.heads = kHeads;
  config.layers = {{.global = true,
                    .head_dim = kHeadDim,
                    .kv_heads = kKvHeads,
                    .ff = 64,
                    .kv_source = 0}};
  config.context_length = 256;
  config.attention_scale = 0.125;
  return config;
}

class KvCacheTest : public testing::TestWithParam<Precision> {
 protected:
  Numerics numerics() const {
    Numerics numerics;
    numerics.kv_cache = GetParam();
    return numerics;
  }
};

// Sequences that grow by a token each are appended by several threads, and make
// their next pages in the same step.
TEST_P(KvCacheTest, TokensOfManySequencesEqualThoseAppendedOneByOne) {
  kernels::ThreadPool many(3), one(1);
  KvCache together(Config(), numerics(), kSlots, 256, 0);
  KvCache apart(Config(), numerics(), kSlots, 256, 0);
  std::vector<KvRows> rows;
  for (int slot = 0; slot < kSlots; ++slot) rows.push_back({slot, 1});
  std::vector<float> q, outs[2];
  for (int token = 0; token < kTokens; ++token) {
    const auto seed = static_cast<uint32_t>(3 * token);
    const std::vector<float> k = kernels::RandomFloats(kSlots * kWidth, seed);
    const std::vector<float> v =
        kernels::RandomFloats(kSlots * kWidth, seed + 1);
    q = kernels::RandomFloats(kSlots * kHeads * kHeadDim, seed + 2);
    together.Append(0, rows, k.data(), v.data(), many);
    for (int slot = 0; slot < kSlots; ++slot) {
      apart.Append(0, {{slot, 1}}, k.data() + slot * kWidth,
                   v.data() + slot * kWidth, one);
    }
    int i = 0;
    for (KvCache* cache : {&together, &apart}) {
      outs[i].resize(q.size());
      cache->Attend(0, rows, q.data(), outs[i].data(), many);
      cache->Advance(rows);
      ++i;
    }
    ASSERT_EQ(outs[0], outs[1]) << token;
    ASSERT_EQ(together.bytes(), apart.bytes()) << token;
  }
  EXPECT_EQ(together.length(kSlots - 1), kTokens);
}

TEST_P(KvCacheTest, PromptsAndTokensMayShareAStep) {
  kernels::ThreadPool many(3), one(1);
  KvCache together(Config(), numerics(), kSlots, 256, 0);
  KvCache apart(Config(), numerics(), kSlots, 256, 0);
  const std::vector<KvRows> rows = {{0, 1}, {3, kTokens}, {1, 1}};
  const int64_t all = kTokens + 2;
  const std::vector<float> k = kernels::RandomFloats(all * kWidth, 1);
  const std::vector<float> v = kernels::RandomFloats(all * kWidth, 2);
  const std::vector<float> q =
      kernels::RandomFloats(all * kHeads * kHeadDim, 3);
  together.Append(0, rows, k.data(), v.data(), many);
  int64_t first = 0;
  for (const KvRows& part : rows) {
    apart.Append(0, {part}, k.data() + first * kWidth,
                 v.data() + first * kWidth, one);
    first += part.count;
  }
  std::vector<float> outs[2] = {std::vector<float>(q.size()),
                                std::vector<float>(q.size())};
  together.Attend(0, rows, q.data(), outs[0].data(), many);
  apart.Attend(0, rows, q.data(), outs[1].data(), one);
  EXPECT_EQ(outs[0], outs[1]);
}

INSTANTIATE_TEST_SUITE_P(AllPrecisions, KvCacheTest,
                         testing::Values(Precision::kInt8, Precision::kF32,
                                         Precision::kBf16),
                         [](const auto& info) {
                           return PrecisionName(info.param);
                         });

}  // namespace
}  // namespace onegrid::inference
