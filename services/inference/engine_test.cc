// Goal: what a sequence computes depends on nothing but the sequence.
// Method: a tiny random model; whole prompts against chunks, batches against
// single sequences, and a naive float forward over kernels/reference as oracle.
#include "services/inference/engine.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/files.h"
#include "services/inference/engine_oracle.h"
#include "services/inference/engine_testing.h"
#include "services/inference/sampler.h"
#include "services/inference/tiny_model.h"
#include "services/model/tensor_names.h"

namespace onegrid::inference {
namespace {

class EngineTest : public testing::Test {
 protected:
  static constexpr int kRollback = 8;

  static void SetUpTestSuite() {
    path_ = new std::string(testing::TempDir() + "/tiny_engine.gguf");
    ASSERT_TRUE(WriteTinyModel(*path_).ok());
    pool_ = new kernels::ThreadPool(2);
    auto file = model::GgufFile::Open(*path_);
    ASSERT_TRUE(file.ok()) << file.status();
    auto weights = LoadGemmaWeights(**file, *pool_);
    ASSERT_TRUE(weights.ok()) << weights.status();
    file_ = std::move(*file).release();
    weights_ = new GemmaWeights(*std::move(weights));
  }

  static std::unique_ptr<Engine> Make(Precision activations, Precision kv_cache,
                                      int max_sequences = 4) {
    EngineOptions options;
    options.numerics.activations = activations;
    options.numerics.kv_cache = kv_cache;
    options.max_sequences = max_sequences;
    options.max_context = kTinyContext;
    options.max_step_tokens = kStep;
    options.max_rollback = kRollback;
    auto engine = Engine::Create(*weights_, options, *pool_);
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }

  static std::string* path_;
  static kernels::ThreadPool* pool_;
  static model::GgufFile* file_;
  static GemmaWeights* weights_;
};

std::string* EngineTest::path_ = nullptr;
kernels::ThreadPool* EngineTest::pool_ = nullptr;
model::GgufFile* EngineTest::file_ = nullptr;
GemmaWeights* EngineTest::weights_ = nullptr;

TEST_F(EngineTest, TheLargestLogitsAreThoseOfAll) {
  for (const Precision activations : {Precision::kInt8, Precision::kF32}) {
    auto engine = Make(activations, Precision::kInt8, /*max_sequences=*/12);
    const std::vector<int32_t> tokens = RandomTokens(12, 7);
    ASSERT_TRUE(engine->Forward({Chunk{0, tokens, 0}}).ok());
    std::vector<int> counts;
    for (int i = 0; i < 10; ++i) counts.push_back(1 + 20 * i);
    const auto best = engine->TopLogits(2, counts);
    if (activations == Precision::kF32) {
      EXPECT_TRUE(best.empty());
      continue;
    }
    ASSERT_EQ(best.size(), counts.size());
    const std::vector<std::vector<cpu::TopProduct>> kept(best.begin(),
                                                         best.end());
    const absl::Span<const float> all = engine->Logits(2, 10);
    for (int i = 0; i < 10; ++i) {
      const absl::Span<const float> row =
          all.subspan(i * kTinyVocab, kTinyVocab);
      const std::vector<int32_t> top = TopN(row, counts[i]);
      ASSERT_EQ(kept[i].size(), top.size());
      for (size_t j = 0; j < top.size(); ++j) {
        EXPECT_EQ(kept[i][j].index, top[j]);
        EXPECT_EQ(kept[i][j].value, row[top[j]]);
      }
    }
    // Few rows, or most of a row.
    EXPECT_TRUE(engine->TopLogits(0, {1, 1, 1}).empty());
    counts[3] = 300;
    EXPECT_TRUE(engine->TopLogits(2, counts).empty());
  }
}

TEST_F(EngineTest, AHeadIsSplitWhereItsLogitsCanBeSearched) {
  Numerics numerics;
  EXPECT_EQ(HeadStorageFor(numerics), cpu::PackedLinear::Storage::kSplit);
  numerics.activations = Precision::kF32;
  EXPECT_EQ(HeadStorageFor(numerics), cpu::PackedLinear::Storage::kWhole);
}

// Where the head is split, all logits are the same, the sketch is learnt from
// what is asked for, and the largest it tells of are those.
void ExpectSameLogitsOfASplitHead(const model::GgufFile& file,
                                  kernels::ThreadPool& pool) {
  const auto weights =
      LoadGemmaWeights(file, pool, cpu::PackedLinear::Storage::kSplit);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_TRUE(weights->head().split());
  const auto whole_weights = LoadGemmaWeights(file, pool);
  ASSERT_TRUE(whole_weights.ok()) << whole_weights.status();
  EXPECT_EQ(weights->bytes(), whole_weights->bytes());
  EngineOptions options;
  options.max_context = kTinyContext;
  const auto split = Engine::Create(*weights, options, pool);
  ASSERT_TRUE(split.ok()) << split.status();
  const auto whole = Engine::Create(*whole_weights, options, pool);
  EXPECT_FALSE((*whole)->can_sketch_head());
  ASSERT_TRUE((*split)->can_sketch_head());
  const std::vector<int32_t> tokens = RandomTokens(8, 7);
  for (const auto& engine : {split->get(), whole->get()}) {
    ASSERT_TRUE(engine->Forward({Chunk{0, tokens, 0}}).ok());
  }
  const absl::Span<const float> logits = (*split)->Logits(0, 8);
  const absl::Span<const float> wanted = (*whole)->Logits(0, 8);
  EXPECT_TRUE(std::equal(logits.begin(), logits.end(), wanted.begin()));
  int calls = 0;
  for (; !(*split)->top_logits_learnt(); ++calls) {
    ASSERT_LT(calls, 1000);
    EXPECT_TRUE((*split)->TopLogits(0, std::vector<int>(8, 1)).empty());
  }
  EXPECT_GT(calls, 8);
  const auto best = (*split)->TopLogits(5, {3});
  ASSERT_EQ(best.size(), 1u);
  const absl::Span<const float> row =
      wanted.subspan(5 * kTinyVocab, kTinyVocab);
  const std::vector<int32_t> top = TopN(row, 3);
  for (size_t i = 0; i < top.size(); ++i) {
    EXPECT_EQ(best[0][i].index, top[i]);
    EXPECT_EQ(best[0][i].value, row[top[i]]);
  }
}

TEST_F(EngineTest, ASplitHeadGivesTheSameLogits) {
  ExpectSameLogitsOfASplitHead(*file_, *pool_);
}

TEST_F(EngineTest, ASplitHeadGivesTheSameCappedLogits) {
  const auto [file, weights] =
      LoadTiny({.structure = TinyStructure::kGemma4Edge, .types = {}}, *pool_);
  ASSERT_GT(weights.config.logit_softcap, 0);
  ExpectSameLogitsOfASplitHead(*file, *pool_);
}

TEST_F(EngineTest, FloatModeEqualsTheNaiveForwardBeyondTheWindow) {
  const std::vector<int32_t> tokens = RandomTokens(5 * kTinyWindow, 7);
  auto engine = Make(Precision::kF32, Precision::kF32);
  const Rows ours = RunRows(*engine, 0, tokens, 24);
  const Rows oracle = RunOracle(*file_, weights_->config, tokens);
  // Logits are of order 10; f32 sums of up to 96 terms in 4 layers.
  EXPECT_LT(MaxDifference(ours, oracle), 1e-3);
}

// Layers that have no keys of their own compute rows with an output only: what
// is asked for must not change what comes out, now or later.
TEST_F(EngineTest, RowsWithoutOutputChangeNothing) {
  const auto [file, weights] =
      LoadTiny({.structure = TinyStructure::kGemma4Edge, .types = {}}, *pool_);
  EngineOptions options;
  options.max_sequences = 3;
  options.max_context = kTinyContext;
  options.max_step_tokens = kStep;
  const auto engine = Engine::Create(weights, options, *pool_);
  ASSERT_TRUE(engine.ok()) << engine.status();
  const std::vector<int32_t> a = RandomTokens(30, 3), b = RandomTokens(25, 4);
  const Rows all_a = RunRows(**engine, 0, a, kStep);
  const Rows all_b = RunRows(**engine, 1, b, kStep);
  // In one step: the last five rows of a, none of b.
  (*engine)->Reset(0);
  (*engine)->Reset(1);
  ASSERT_TRUE((*engine)->Forward({Chunk{1, b, 25}, Chunk{0, a, 25}}).ok());
  Rows rows;
  AppendRows(**engine, &rows);
  EXPECT_EQ(rows, Rows(all_a.begin() + 25, all_a.end()));
  // Then nothing of b for a while, and at last something.
  const std::vector<int32_t> more = RandomTokens(20, 5);
  ASSERT_TRUE((*engine)
                  ->Forward({Chunk{1, absl::MakeConstSpan(more).first(19), 19}})
                  .ok());
  EXPECT_EQ((*engine)->output_rows(), 0);
  ASSERT_TRUE(
      (*engine)
          ->Forward({Chunk{1, absl::MakeConstSpan(more).subspan(19), 0}})
          .ok());
  rows.clear();
  AppendRows(**engine, &rows);
  std::vector<int32_t> whole = b;
  whole.insert(whole.end(), more.begin(), more.end());
  EXPECT_EQ(rows.back(), RunRows(**engine, 2, whole, kStep).back());
}

TEST_F(EngineTest, ChunksOfAnySizeGiveTheSameLogitsAsOneGo) {
  const std::vector<int32_t> tokens = RandomTokens(60, 3);
  for (Precision precision : {Precision::kInt8, Precision::kF32}) {
    auto engine = Make(precision, precision);
    const Rows whole = RunRows(*engine, 0, tokens, kStep);
    for (int chunk : {1, 2, 7, 12, 13, 31}) {
      // A difference of summation order in attention is all there may be.
      EXPECT_LT(MaxDifference(RunRows(*engine, 1, tokens, chunk), whole), 1e-3)
          << chunk;
    }
  }
}

TEST_F(EngineTest, ABatchOfSequencesEqualsEachAlone) {
  auto engine = Make(Precision::kInt8, Precision::kInt8);
  const std::vector<std::vector<int32_t>> prompts = {
      RandomTokens(5, 1), RandomTokens(20, 2), RandomTokens(33, 3)};
  std::vector<Rows> alone;
  for (const auto& prompt : prompts) {
    alone.push_back(RunRows(*engine, 3, prompt, kStep));
  }
  Rows together;
  ASSERT_TRUE(engine
                  ->Forward({Chunk{2, prompts[0], 0}, Chunk{0, prompts[1], 19},
                             Chunk{1, prompts[2], 30}})
                  .ok());
  ASSERT_EQ(engine->output_rows(), 5 + 1 + 3);
  AppendRows(*engine, &together);
  Rows expected = alone[0];
  expected.push_back(alone[1][19]);
  expected.insert(expected.end(), alone[2].begin() + 30, alone[2].end());
  EXPECT_LT(MaxDifference(together, expected), 1e-3);
}

TEST_F(EngineTest, Int8CacheIsCloseToTheFloatCache) {
  const std::vector<int32_t> tokens = RandomTokens(60, 5);
  auto f32 = Make(Precision::kF32, Precision::kF32);
  auto int8 = Make(Precision::kF32, Precision::kInt8);
  const Rows exact = RunRows(*f32, 0, tokens, kStep);
  const Rows rounded = RunRows(*int8, 0, tokens, kStep);
  double squares = 0, error = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    for (size_t j = 0; j < exact[i].size(); ++j) {
      squares += exact[i][j] * exact[i][j];
      error += std::pow(exact[i][j] - rounded[i][j], 2);
    }
  }
  // int8 keeps about 0.4 % per element; the layers add up.
  EXPECT_LT(std::sqrt(error / squares), 0.03);
  EXPECT_GT(error, 0);
}

TEST_F(EngineTest, ResetForgetsTheSequence) {
  auto engine = Make(Precision::kInt8, Precision::kInt8);
  const Rows first = RunRows(*engine, 0, RandomTokens(30, 1), kStep);
  RunRows(*engine, 0, RandomTokens(40, 2), kStep);
  EXPECT_EQ(engine->length(0), 40);
  EXPECT_EQ(
      MaxDifference(RunRows(*engine, 0, RandomTokens(30, 1), kStep), first), 0);
}

TEST_F(EngineTest, ACopyGoesOnAsTheSequenceWouldAndApart) {
  for (Precision kv_cache :
       {Precision::kInt8, Precision::kBf16, Precision::kF32}) {
    auto engine = Make(Precision::kInt8, kv_cache);
    // Beyond the window, so that some pages are gone.
    const std::vector<int32_t> tokens = RandomTokens(150, 1);
    const Rows whole = RunRows(*engine, 0, tokens, kStep);
    const auto all = absl::MakeConstSpan(tokens);
    RunRows(*engine, 1, {tokens.begin(), tokens.begin() + 110}, kStep);
    // What the copy held before is gone.
    RunRows(*engine, 2, RandomTokens(30, 2), kStep);
    engine->Copy(1, 2);
    EXPECT_EQ(engine->length(2), 110);
    for (int slot : {2, 1}) {
      Rows rest;
      ASSERT_TRUE(engine->Forward({Chunk{slot, all.subspan(110), 0}}).ok());
      AppendRows(*engine, &rest);
      EXPECT_LT(MaxDifference(rest, {whole.begin() + 110, whole.end()}), 1e-3);
    }
  }
}

// At each length: wrong tokens are run and taken back, also where that crosses
// the edge of a page that the window has just left.
TEST_F(EngineTest, TokensTakenBackLeaveNoTrace) {
  const std::vector<int32_t> tokens = RandomTokens(200, 1);
  const std::vector<int32_t> wrong = RandomTokens(kRollback, 9);
  const auto all = absl::MakeConstSpan(tokens);
  for (Precision kv_cache :
       {Precision::kInt8, Precision::kBf16, Precision::kF32}) {
    auto engine = Make(Precision::kInt8, kv_cache);
    const Rows whole = RunRows(*engine, 0, tokens, 1);
    engine->Reset(0);
    Rows rows;
    for (int i = 0; i < 200; ++i) {
      ASSERT_TRUE(engine->Forward({Chunk{0, wrong, kRollback}}).ok());
      engine->Truncate(0, i);
      ASSERT_TRUE(engine->Forward({Chunk{0, all.subspan(i, 1), 0}}).ok());
      AppendRows(*engine, &rows);
    }
    EXPECT_EQ(MaxDifference(rows, whole), 0);
  }
}

TEST_F(EngineTest, BytesReadStopGrowingAtTheWindow) {
  auto engine = Make(Precision::kInt8, Precision::kInt8);
  // 4 layers of 2 heads of 32: codes, a key scale and a value scale.
  constexpr int64_t kToken = 2 * (2 * 32 + 8 + 2);
  EXPECT_EQ(engine->kv_bytes_read(0), 4 * kToken);
  EXPECT_EQ(engine->kv_bytes_read(kTinyWindow - 1), 4 * kTinyWindow * kToken);
  EXPECT_EQ(engine->kv_bytes_read(kTinyWindow), (4 * kTinyWindow + 1) * kToken);
}

TEST_F(EngineTest, Bf16HalvesTheCacheOfFloats) {
  const auto floats = Make(Precision::kF32, Precision::kF32);
  const auto halves = Make(Precision::kF32, Precision::kBf16);
  const std::vector<int32_t> tokens = RandomTokens(150, 1);
  const Rows expected = RunRows(*floats, 0, tokens, kStep);
  const Rows rows = RunRows(*halves, 0, tokens, kStep);
  EXPECT_EQ(2 * halves->kv_cache().bytes(), floats->kv_cache().bytes());
  EXPECT_EQ(2 * halves->kv_bytes_read(9), floats->kv_bytes_read(9));
  EXPECT_GT(MaxDifference(rows, expected), 0);
}

TEST_F(EngineTest, WhatDoesNotFitIsRefusedAndChangesNothing) {
  auto engine = Make(Precision::kInt8, Precision::kInt8);
  const std::vector<int32_t> tokens = RandomTokens(kStep, 1);
  ASSERT_TRUE(engine->Forward({Chunk{0, tokens, kStep}}).ok());
  EXPECT_EQ(engine->output_rows(), 0);
  const std::vector<int32_t> unknown = {kTinyVocab};
  const auto one = absl::MakeConstSpan(tokens).first(1);
  EXPECT_FALSE(engine->Forward({Chunk{1, unknown, 0}}).ok());
  EXPECT_FALSE(engine->Forward({Chunk{4, one, 0}}).ok());
  EXPECT_FALSE(engine->Forward({Chunk{1, one, 0}, Chunk{1, one, 0}}).ok());
  EXPECT_FALSE(engine->Forward({Chunk{1, tokens, 0}, Chunk{2, one, 0}}).ok());
  for (int i = 1; i < kTinyContext / kStep; ++i) {
    ASSERT_TRUE(engine->Forward({Chunk{0, tokens, kStep}}).ok());
  }
  EXPECT_FALSE(engine->Forward({Chunk{0, one, 0}}).ok());
  EXPECT_EQ(engine->length(0), kTinyContext);
  EXPECT_EQ(engine->length(1), 0);
}

// The table stays in the file, so loading has not looked at its values.
TEST_F(EngineTest, TableValuesThatAreNotFiniteAreLoss) {
  const std::string path = testing::TempDir() + "/tiny_engine_loss.gguf";
  ASSERT_TRUE(WriteTinyModel(
                  path, {.structure = TinyStructure::kGemma4Edge, .types = {}})
                  .ok());
  std::string bytes = *common::ReadFile(path);
  {
    const auto file = model::GgufFile::Open(path);
    const auto* table = (*file)->Find(model::kGgufPerLayerEmbedding);
    ASSERT_EQ(table->type, quant::GgmlType::kQ8_0);
    // The scale of the first block of token 7's row: binary16's infinity.
    const absl::string_view row(
        reinterpret_cast<const char*>(table->data.data()) +
            7 * table->data.size() / kTinyVocab,
        table->data.size() / kTinyVocab);
    const size_t at = bytes.find(std::string(row));
    ASSERT_NE(at, std::string::npos);
    bytes.replace(at, 2, std::string("\x00\x7c", 2));
  }
  ASSERT_TRUE(common::WriteFileAtomic(path, bytes).ok());
  const auto file = model::GgufFile::Open(path);
  const auto weights = LoadGemmaWeights(**file, *pool_);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EngineOptions options;
  options.max_sequences = 2;
  options.max_context = kTinyContext;
  const auto engine = Engine::Create(*weights, options, *pool_);
  ASSERT_TRUE(engine.ok()) << engine.status();
  const std::vector<int32_t> good = {kTinyBos, 6, 8}, bad = {kTinyBos, 7};
  const Rows before = RunRows(**engine, 0, good, kStep);
  const absl::Status status =
      (*engine)->Forward({Chunk{0, good, 0}, Chunk{1, bad, 0}});
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("token 7"));
  EXPECT_EQ((*engine)->length(0), 3);
  EXPECT_EQ((*engine)->length(1), 0);
  EXPECT_EQ(RunRows(**engine, 1, good, kStep), before);
}

}  // namespace
}  // namespace onegrid::inference
