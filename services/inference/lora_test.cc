// Goal: an adapter at run time is the merged model, and touches its own
// sequences only.
// Method: the naive float forward with merged weights as oracle; sequences in
// one batch against each alone, bit for bit.
#include "services/inference/lora.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/inference/engine.h"
#include "services/inference/engine_oracle.h"
#include "services/inference/tiny_adapter.h"
#include "services/inference/tiny_model.h"
#include "services/model/tensor_names.h"

namespace onegrid::inference {
namespace {

using ::testing::HasSubstr;

class LoraTest : public testing::TestWithParam<TinyStructure> {
 protected:
  void Open(TinyStructure structure) {
    const std::string path = Path("model.gguf");
    ASSERT_TRUE(
        WriteTinyModel(path, {.structure = structure, .types = {}}).ok());
    auto file = model::GgufFile::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    auto weights = LoadGemmaWeights(*file_, pool_);
    ASSERT_TRUE(weights.ok()) << weights.status();
    weights_ = std::make_unique<GemmaWeights>(*std::move(weights));
  }

  // A name of this test's own: several may run at once.
  static std::string Path(const std::string& name) {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    std::string prefix = test->name();
    std::replace(prefix.begin(), prefix.end(), '/', '_');
    return testing::TempDir() + "/lora_" + prefix + "_" + name;
  }

  std::unique_ptr<model::Adapter> Read(const TinyAdapterOptions& options) {
    const std::string folder = Path("adapter");
    EXPECT_TRUE(WriteTinyAdapter(folder, weights_->config, options).ok());
    auto adapter = model::Adapter::OpenPeft(
        folder + "/adapter_model.safetensors", folder + "/adapter_config.json",
        model::GemmaLinears(weights_->config));
    EXPECT_TRUE(adapter.ok()) << adapter.status();
    return *std::move(adapter);
  }

  absl::StatusOr<LoraAdapter> Create(const TinyAdapterOptions& options) {
    return LoraAdapter::Create(*Read(options), "digest", weights_->config,
                               pool_);
  }

  std::unique_ptr<Engine> Make(Precision precision) {
    EngineOptions options;
    options.numerics.activations = options.numerics.kv_cache = precision;
    options.max_sequences = 4;
    options.max_context = kTinyContext;
    options.max_step_tokens = 128;
    auto engine = Engine::Create(*weights_, options, pool_);
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }

  static void AppendRows(Engine& engine, int first, int count, Rows* rows) {
    for (int i = first; i < first + count; ++i) {
      const absl::Span<const float> row = engine.Logits(i, 1);
      rows->emplace_back(row.begin(), row.end());
    }
  }

  static Rows Run(Engine& engine, const std::vector<int32_t>& tokens,
                  const LoraAdapter* adapter, int chunk = 100) {
    engine.Reset(0);
    Rows rows;
    for (size_t at = 0; at < tokens.size(); at += chunk) {
      const auto part = absl::MakeConstSpan(tokens).subspan(at, chunk);
      EXPECT_TRUE(engine.Forward({Chunk{0, part, 0, adapter}}).ok());
      AppendRows(engine, 0, engine.output_rows(), &rows);
    }
    return rows;
  }

  kernels::ThreadPool pool_{2};
  std::unique_ptr<model::GgufFile> file_;
  std::unique_ptr<GemmaWeights> weights_;
};

// Ranks below, at and beyond the 16 that are laid out at once.
TEST_F(LoraTest, EqualsTheMergedModel) {
  Open(TinyStructure::kGemma3);
  const std::vector<int32_t> tokens = RandomTokens(3 * kTinyWindow, 7);
  const auto engine = Make(Precision::kF32);
  const Rows base = RunOracle(*file_, weights_->config, tokens);
  for (const int64_t rank : {1, 4, 16, 17}) {
    SCOPED_TRACE(rank);
    const TinyAdapterOptions options{.seed = 3, .rank = rank};
    const auto adapter = Read(options);
    const auto lora =
        LoraAdapter::Create(*adapter, "digest", weights_->config, pool_);
    ASSERT_TRUE(lora.ok()) << lora.status();
    EXPECT_EQ(lora->max_rank(), rank);
    EXPECT_EQ(lora->linears(), 28);
    const Rows merged =
        RunOracle(*file_, weights_->config, tokens, adapter.get());
    // As without adapters: logits are of order 10, f32 sums of up to 96 terms
    // in 4 layers. What bf16 alone would leave is twenty times as much.
    EXPECT_LT(MaxDifference(Run(*engine, tokens, &*lora), merged), 1e-3);
    EXPECT_GT(MaxDifference(base, merged), 0.5);
  }
}

// The same with activations in int8, where an MLP without an adapter never has
// its own in floats.
TEST_F(LoraTest, EachKindOfLinearIsAdaptedInInt8) {
  Open(TinyStructure::kGemma3);
  const std::vector<int32_t> tokens = RandomTokens(kTinyWindow, 9);
  const auto engine = Make(Precision::kInt8);
  const Rows base = Run(*engine, tokens, nullptr);
  for (const std::string kind : {"q_proj", "k_proj", "v_proj", "o_proj",
                                 "gate_proj", "up_proj", "down_proj"}) {
    SCOPED_TRACE(kind);
    const auto adapter = Read({.kinds = {kind}});
    const auto lora =
        LoraAdapter::Create(*adapter, "digest", weights_->config, pool_);
    ASSERT_TRUE(lora.ok()) << lora.status();
    const Rows merged =
        RunOracle(*file_, weights_->config, tokens, adapter.get());
    // What int8 activations cost is a part of what the adapter does.
    EXPECT_LT(MaxDifference(Run(*engine, tokens, &*lora), merged),
              MaxDifference(base, merged) / 2);
  }
}

// Of one kind alone: its input and output are those of its own linear.
TEST_F(LoraTest, EachKindOfLinearIsAdapted) {
  Open(TinyStructure::kGemma3);
  const std::vector<int32_t> tokens = RandomTokens(kTinyWindow, 9);
  const auto engine = Make(Precision::kF32);
  for (const std::string kind : {"q_proj", "k_proj", "v_proj", "o_proj",
                                 "gate_proj", "up_proj", "down_proj"}) {
    SCOPED_TRACE(kind);
    const auto adapter = Read({.kinds = {kind}});
    const auto lora =
        LoraAdapter::Create(*adapter, "digest", weights_->config, pool_);
    ASSERT_TRUE(lora.ok()) << lora.status();
    EXPECT_EQ(lora->linears(), 4);
    const Rows merged =
        RunOracle(*file_, weights_->config, tokens, adapter.get());
    EXPECT_LT(MaxDifference(Run(*engine, tokens, &*lora), merged), 1e-3);
  }
}

TEST_P(LoraTest, SequencesOfOneBatchDoNotTouchEachOther) {
  Open(GetParam());
  const auto a = Create({.seed = 1, .rank = 4});
  const auto b = Create({.seed = 2, .rank = 20});
  ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
  const auto engine = Make(Precision::kInt8);
  const LoraAdapter* const adapters[] = {&*a, nullptr, &*b, &*a};
  std::vector<std::vector<int32_t>> tokens;
  std::vector<Rows> alone;
  for (int i = 0; i < 4; ++i) {
    tokens.push_back(RandomTokens(20 + 3 * i, i));
    alone.push_back(Run(*engine, tokens[i], adapters[i], 7));
  }
  engine->Reset(0);
  // The first of each sequence, then the rest, without some of the output.
  std::vector<Chunk> chunks;
  for (int i = 0; i < 4; ++i) {
    chunks.push_back(
        {i, absl::MakeConstSpan(tokens[i]).first(5), 5, adapters[i]});
  }
  ASSERT_TRUE(engine->Forward(chunks).ok());
  for (int i = 0; i < 4; ++i) {
    chunks[i].tokens = absl::MakeConstSpan(tokens[i]).subspan(5);
    chunks[i].first_output = i;
  }
  ASSERT_TRUE(engine->Forward(chunks).ok());
  int row = 0;
  for (int i = 0; i < 4; ++i) {
    const int count = static_cast<int>(tokens[i].size()) - 5 - i;
    Rows rows;
    AppendRows(*engine, row, count, &rows);
    row += count;
    EXPECT_EQ(rows, Rows(alone[i].end() - count, alone[i].end())) << i;
  }
  EXPECT_NE(Run(*engine, tokens[1], &*a), alone[1]);
  EXPECT_EQ(Run(*engine, tokens[1], nullptr), alone[1]);
}

INSTANTIATE_TEST_SUITE_P(Structures, LoraTest,
                         testing::Values(TinyStructure::kGemma3,
                                         TinyStructure::kGemma4Edge,
                                         TinyStructure::kGemma4Experts));

TEST_F(LoraTest, RefusesLinearsThatCannotBeAdaptedWhileServing) {
  Open(TinyStructure::kGemma4Edge);
  const auto specs = model::GemmaLinears(weights_->config);
  const auto other = std::find_if(specs.begin(), specs.end(),
                                  [](const model::LinearSpec& spec) {
                                    return spec.kind == "per_layer_input_gate";
                                  });
  ASSERT_NE(other, specs.end());
  const auto lora = Create({.kinds = {"q_proj", other->kind}});
  EXPECT_EQ(lora.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(lora.status().message(), HasSubstr(other->hf_name));
}

}  // namespace
}  // namespace onegrid::inference
