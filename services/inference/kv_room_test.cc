#include "services/inference/kv_room.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/base/thread_pool.h"
#include "services/inference/engine.h"
#include "services/inference/gemma_weights.h"
#include "services/inference/tiny_model.h"
#include "services/model/gguf_reader.h"

namespace onegrid::inference {
namespace {

constexpr int kStep = 32;

class KvRoomTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string path =
        testing::TempDir() + "/" +
        testing::UnitTest::GetInstance()->current_test_info()->name() + ".gguf";
    ASSERT_TRUE(WriteTinyModel(path).ok());
    const auto file = model::GgufFile::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    auto weights = LoadGemmaWeights(**file, pool_);
    ASSERT_TRUE(weights.ok()) << weights.status();
    weights_ = std::make_unique<GemmaWeights>(*std::move(weights));
    EngineOptions options;
    options.max_sequences = 3;
    options.max_context = kTinyContext;
    options.max_step_tokens = kStep;
    options.prefix_bytes = 1 << 20;
    auto engine = Engine::Create(*weights_, options, pool_);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    for (int i = 0; i < kTinyContext; ++i) {
      tokens_.push_back(kTinyLetterA + i * 7 % 26);
    }
  }

  // Makes the slot's sequence the first `length` of tokens_.
  void Run(int slot, int length) {
    while (engine_->length(slot) < length) {
      const int count = std::min(kStep, length - engine_->length(slot));
      ASSERT_TRUE(
          engine_
              ->Forward({Chunk{slot,
                               absl::MakeConstSpan(tokens_).subspan(
                                   static_cast<size_t>(engine_->length(slot)),
                                   static_cast<size_t>(count)),
                               count}})
              .ok());
      engine_->Share(slot, tokens_);
    }
  }

  int64_t bytes() const { return engine_->kv_cache().bytes(); }
  int64_t block() const { return engine_->kv_cache().block_bytes(); }

  kernels::ThreadPool pool_{1};
  std::unique_ptr<GemmaWeights> weights_;
  std::unique_ptr<Engine> engine_;
  std::vector<int32_t> tokens_;
};

TEST_F(KvRoomTest, PagesThatSeveralUseCountOnce) {
  Run(0, 200);
  const int64_t one = bytes();
  EXPECT_EQ(engine_->Restore(1, absl::MakeConstSpan(tokens_).first(199)), 192);
  EXPECT_EQ(bytes(), one);
  engine_->Reset(0);
  EXPECT_LT(bytes(), one);
  engine_->Reset(1);
  EXPECT_EQ(bytes(), engine_->kv_cache().prefix_bytes());
  EXPECT_EQ(bytes(), engine_->kv_cache().idle_prefix_bytes());
  engine_->kv_cache().GiveUpPrefixes(1 << 20);
  EXPECT_EQ(bytes(), 0);
}

TEST_F(KvRoomTest, ATailTakesABlock) {
  Run(0, 200);
  const int64_t one = bytes();
  EXPECT_TRUE(KvRoom(*engine_, one + block()).HasBlock());
  EXPECT_FALSE(KvRoom(*engine_, one + block() - 1).HasBlock());
  const auto tokens = absl::MakeConstSpan(tokens_).first(150);
  EXPECT_EQ(engine_->Restore(1, tokens), 128);
  EXPECT_EQ(bytes(), one);
  EXPECT_EQ(engine_->Restore(2, tokens, "", /*with_tail=*/true), 150);
  EXPECT_EQ(bytes(), one + block());
  engine_->Reset(2);
  EXPECT_EQ(bytes(), one);
}

TEST_F(KvRoomTest, ComputedTwiceIsHeldOnce) {
  Run(0, 130);
  const int64_t one = bytes();
  Run(1, 130);
  // The second sequence's own: what is behind the full pages.
  EXPECT_LT(bytes() - one, 2 * block());
  EXPECT_GE(bytes() - one, block());
  engine_->Reset(0);
  engine_->kv_cache().GiveUpPrefixes(1 << 20);
  // It uses kept pages, so those stay: two of the global layer, and of the
  // three others the one that the window has not passed.
  EXPECT_EQ(engine_->kv_cache().prefix_bytes(), 5 * block() / 4);
}

TEST_F(KvRoomTest, RoomIsTakenInPagesUpToTheLimit) {
  const int64_t limit = 3 * block() + block() / 2;
  KvRoom room(*engine_, limit);
  EXPECT_EQ(room.limit(), limit);
  EXPECT_EQ(room.Take(0, 1), 1);
  EXPECT_EQ(room.Take(0, 64), 64);
  EXPECT_EQ(room.Take(1, 200), 128);
  EXPECT_EQ(room.Take(2, 1), 0);
  room.BeginStep();
  EXPECT_EQ(room.Take(2, 1), 1);
  Run(2, 1);
  room.BeginStep();
  // The rest of its page costs nothing.
  EXPECT_EQ(room.Take(0, 128), 128);
  EXPECT_EQ(room.Take(1, 1), 0);
  EXPECT_EQ(room.Take(2, 64), 63);
}

TEST_F(KvRoomTest, KeptPrefixesMakeRoom) {
  Run(0, 129);
  engine_->Reset(0);
  EXPECT_EQ(bytes(), 2 * block());
  KvRoom room(*engine_, 3 * block());
  EXPECT_TRUE(room.Fits({{0, 64}, {1, 64}, {2, 64}}));
  EXPECT_FALSE(room.Fits({{0, 64}, {1, 64}, {2, 65}}));
  EXPECT_EQ(room.Take(1, 64), 64);
  EXPECT_EQ(bytes(), 2 * block());
  EXPECT_EQ(room.Take(2, 64), 64);
  EXPECT_LE(bytes(), block());
}

TEST_F(KvRoomTest, TheDefaultHoldsAllThereMayBe) {
  const KvRoom room(*engine_, 0);
  EXPECT_EQ(room.limit(), engine_->kv_bytes_max() + (1 << 20));
  EXPECT_EQ(room.most_tokens(), kTinyContext);
  const KvRoom small(*engine_, block());
  EXPECT_EQ(small.most_tokens(), 64);
  EXPECT_TRUE(small.FitsAlone(64));
  EXPECT_FALSE(small.FitsAlone(65));
}

}  // namespace
}  // namespace onegrid::inference
