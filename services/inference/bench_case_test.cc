#include "services/inference/bench_case.h"

#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "services/common/error_info.h"
#include "services/inference/tiny_model.h"
#include "services/model/gguf_reader.h"

namespace onegrid::inference {
namespace {

constexpr auto kPrompt = BenchCase::Kind::kPrompt;
constexpr auto kGenerate = BenchCase::Kind::kGenerate;

class BenchCaseTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string path = testing::TempDir() + "/tiny_bench.gguf";
    ASSERT_TRUE(WriteTinyModel(path).ok());
    const auto file = model::GgufFile::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    auto weights =
        LoadGemmaWeights(**file, pool_, cpu::PackedLinear::Storage::kSplit);
    ASSERT_TRUE(weights.ok()) << weights.status();
    weights_ = std::make_unique<GemmaWeights>(*std::move(weights));
    EngineOptions options;
    options.max_sequences = 4;
    options.max_context = kTinyContext;
    options.max_step_tokens = 32;
    auto engine = Engine::Create(*weights_, options, pool_);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }

  kernels::ThreadPool pool_{2};
  std::unique_ptr<GemmaWeights> weights_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(BenchCaseTest, NamesAreThoseOfLlamaBench) {
  EXPECT_EQ(BenchCaseName({kPrompt, 512, 0, 1}), "pp512");
  EXPECT_EQ(BenchCaseName({kGenerate, 128, 512, 8}), "tg128 x8 @ d512");
}

TEST_F(BenchCaseTest, RunsEachRepetitionAndLeavesTheSlotsEmpty) {
  for (const BenchCase& bench :
       {BenchCase{kPrompt, 70, 0, 1}, BenchCase{kPrompt, 64, 40, 2},
        BenchCase{kGenerate, 5, 0, 1}, BenchCase{kGenerate, 5, 70, 3}}) {
    const auto result = RunBenchCase(bench, {}, 3, *engine_);
    ASSERT_TRUE(result.ok()) << BenchCaseName(bench) << ": " << result.status();
    EXPECT_EQ(result->speeds.size(), 3u);
    for (const double speed : result->speeds) EXPECT_GT(speed, 0);
    EXPECT_EQ(result->head_bytes, weights_->head().bytes());
    for (int slot = 0; slot < 4; ++slot) EXPECT_EQ(engine_->length(slot), 0);
  }
}

// The time of the measured steps, and of those only.
TEST_F(BenchCaseTest, ProfilesWhatItMeasures) {
  OpProfile profile;
  const auto result =
      RunBenchCase({kGenerate, 5, 200, 1}, {}, 1, *engine_, &profile);
  ASSERT_TRUE(result.ok()) << result.status();
  const double seconds = 5 / result->speeds.front();
  EXPECT_GT(profile.seconds(Op::kHead), 0);
  const double total = profile.total();
  EXPECT_LE(total, seconds);
  ASSERT_TRUE(RunBenchCase({kGenerate, 1, 0, 1}, {}, 1, *engine_).ok());
  EXPECT_EQ(profile.total(), total);
}

TEST_F(BenchCaseTest, RefusesWhatTheEngineCannotHold) {
  for (const BenchCase& bench :
       {BenchCase{kPrompt, 0, 0, 1}, BenchCase{kPrompt, 1, -1, 1},
        BenchCase{kGenerate, 1, 0, 4}, BenchCase{kPrompt, 200, 57, 1}}) {
    const auto result = RunBenchCase(bench, {}, 1, *engine_);
    EXPECT_EQ(common::ErrorReason(result.status()), "INVALID_BENCH_CASE")
        << BenchCaseName(bench);
  }
  EXPECT_TRUE(RunBenchCase({kPrompt, 200, 56, 1}, {}, 1, *engine_).ok());
}

// The engine knows the head before anything is measured, from the text or from
// random tokens.
TEST_F(BenchCaseTest, LearnsBeforeItMeasuresTheLargestLogits) {
  ASSERT_TRUE(engine_->can_sketch_head());
  EXPECT_FALSE(engine_->top_logits_learnt());
  BenchCase bench = {kGenerate, 5, 20, 2};
  ASSERT_TRUE(RunBenchCase(bench, {}, 1, *engine_).ok());
  EXPECT_FALSE(engine_->top_logits_learnt());
  bench.top_k = 1;
  const std::vector<int32_t> text = {5, 9, 13};
  const auto result = RunBenchCase(bench, text, 2, *engine_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(engine_->top_logits_learnt());
  EXPECT_GT(result->head_bytes, 0);
  for (int slot = 0; slot < 4; ++slot) EXPECT_EQ(engine_->length(slot), 0);
}

// Counted by hand for the tiny model: hidden 64, ff 96, 4 query heads and 2
// key/value heads of 32 in 4 layers, one of them global.
TEST_F(BenchCaseTest, CostsAreThoseOfTheModel) {
  constexpr double kLayer = 64 * 128 + 2 * 64 * 64 + 128 * 64 + 3 * 64 * 96;
  constexpr double kHead = kTinyVocab * 64.0;
  // The 21st token sees 21 tokens in the global layer and 16 in each other.
  constexpr double kKeys = 21 + 3 * kTinyWindow;
  const auto head = static_cast<double>(weights_->head().bytes());
  const BenchCost one =
      CostOf({kGenerate, 1, 20, 1}, *engine_, *weights_, head);
  EXPECT_EQ(one.ops, 2 * (4 * kLayer + kHead) + 4 * kKeys * 128);
  // A token of one layer: 2 heads of 32 codes twice, two scales each.
  constexpr double kToken = 2 * (2 * 32 + 8 + 2);
  EXPECT_EQ(one.bytes, static_cast<double>(weights_->bytes()) + kKeys * kToken);
  // Two sequences share the weights.
  const BenchCost two =
      CostOf({kGenerate, 1, 20, 2}, *engine_, *weights_, head);
  EXPECT_EQ(two.bytes,
            static_cast<double>(weights_->bytes()) / 2 + kKeys * kToken);
  EXPECT_EQ(two.ops, one.ops);
  // A prompt of 64 tokens reads the body in 2 steps and the head once.
  const BenchCost prompt =
      CostOf({kPrompt, 64, 0, 1}, *engine_, *weights_, head);
  const double body = static_cast<double>(weights_->bytes()) - head;
  EXPECT_EQ(prompt.bytes * 64, 2 * body + head +
                                   (32 + 3 * kTinyWindow) * kToken +
                                   (64 + 3 * kTinyWindow) * kToken);
}

}  // namespace
}  // namespace onegrid::inference
