// Goal: weights of every type give the logits that they should. Method: tiny
// random models of mixed types against a naive float forward over
// kernels/reference.
#include <cmath>
#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/base/thread_pool.h"
#include "services/inference/engine.h"
#include "services/inference/engine_oracle.h"
#include "services/inference/engine_testing.h"
#include "services/inference/tiny_model.h"

namespace onegrid::inference {
namespace {

// All linears and the embedding in bf16.
TinyModelOptions Bf16TinyModel() {
  TinyModelOptions options;
  for (const char* linear : {"attn_q", "attn_k", "attn_v", "attn_output",
                             "ffn_gate", "ffn_up", "ffn_down"}) {
    for (int layer = 0; layer < 4; ++layer) {
      options.types[absl::StrCat("blk.", layer, ".", linear, ".weight")] =
          quant::GgmlType::kBF16;
    }
  }
  options.types["token_embd.weight"] = quant::GgmlType::kBF16;
  return options;
}

TEST(EngineWeightsTest, FloatModeOfEveryTypeEqualsTheNaiveForward) {
  kernels::ThreadPool pool(2);
  TinyModelOptions own_head;
  own_head.own_head = true;
  for (const TinyModelOptions& tiny :
       {MixedTinyModel(), Bf16TinyModel(), own_head}) {
    const auto [file, weights] = LoadTiny(tiny, pool);
    const std::vector<int32_t> tokens = RandomTokens(3 * kTinyWindow, 7);
    const Rows oracle = RunOracle(*file, weights.config, tokens);
    EngineOptions options;
    options.numerics.activations = options.numerics.kv_cache = Precision::kF32;
    options.max_context = kTinyContext;
    auto f32 = Engine::Create(weights, options, pool);
    ASSERT_TRUE(f32.ok()) << f32.status();
    EXPECT_LT(MaxDifference(RunRows(**f32, 0, tokens, 24), oracle), 1e-3);
  }
}

// There is nothing to round in int8 mode either, but for keys and values.
TEST(EngineWeightsTest, Bf16WeightsTakeFloatsInEachMode) {
  kernels::ThreadPool pool(2);
  const auto [file, weights] = LoadTiny(Bf16TinyModel(), pool);
  const std::vector<int32_t> tokens = RandomTokens(40, 11);
  EngineOptions options;
  options.numerics.kv_cache = Precision::kF32;
  options.max_context = kTinyContext;
  Rows rows[2];
  for (const Precision precision : {Precision::kF32, Precision::kInt8}) {
    options.numerics.activations = precision;
    auto engine = Engine::Create(weights, options, pool);
    rows[precision == Precision::kInt8] = RunRows(**engine, 0, tokens, kStep);
  }
  EXPECT_EQ(rows[0], rows[1]);
}

// Where one linear of an MLP takes floats, the others still take codes.
TEST(EngineWeightsTest, EachLinearOfAnMlpMayBeBf16) {
  kernels::ThreadPool pool(2);
  TinyModelOptions tiny;
  tiny.types["blk.0.ffn_gate.weight"] = quant::GgmlType::kBF16;
  tiny.types["blk.1.ffn_up.weight"] = quant::GgmlType::kBF16;
  tiny.types["blk.2.ffn_down.weight"] = quant::GgmlType::kBF16;
  const auto [file, weights] = LoadTiny(tiny, pool);
  const std::vector<int32_t> tokens = RandomTokens(40, 11);
  const Rows oracle = RunOracle(*file, weights.config, tokens);
  EngineOptions options;
  options.max_context = kTinyContext;
  auto engine = Engine::Create(weights, options, pool);
  ASSERT_TRUE(engine.ok()) << engine.status();
  // What int8 activations cost; logits are of order 10.
  const double off = MaxDifference(RunRows(**engine, 0, tokens, kStep), oracle);
  EXPECT_LT(off, 1);
  EXPECT_GT(off, 1e-2);
}

// As served the weights are as exact as in float mode, so int8 activations
// cost on any grid what they cost on int4_g32.
TEST(EngineWeightsTest, Int8ActivationsCostTheSameOnMixedGrids) {
  kernels::ThreadPool pool(2);
  const auto cost = [&pool](const TinyModelOptions& tiny) {
    const auto [file, weights] = LoadTiny(tiny, pool);
    const std::vector<int32_t> tokens = RandomTokens(40, 11);
    Rows rows[2];
    for (const Precision precision : {Precision::kF32, Precision::kInt8}) {
      EngineOptions options;
      options.numerics.activations = options.numerics.kv_cache = precision;
      options.max_context = kTinyContext;
      auto engine = Engine::Create(weights, options, pool);
      rows[precision == Precision::kInt8] = RunRows(**engine, 0, tokens, kStep);
    }
    double squares = 0, error = 0;
    for (size_t i = 0; i < rows[0].size(); ++i) {
      for (size_t j = 0; j < rows[0][i].size(); ++j) {
        squares += rows[0][i][j] * rows[0][i][j];
        error += std::pow(rows[0][i][j] - rows[1][i][j], 2);
      }
    }
    return std::sqrt(error / squares);
  };
  const double int4 = cost({}), mixed = cost(MixedTinyModel());
  EXPECT_LT(int4, 0.03);
  EXPECT_LT(mixed, 0.03);
}

}  // namespace
}  // namespace onegrid::inference
