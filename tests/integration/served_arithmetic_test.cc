// Goal: the logits that the finetuner tells of a model are the ones that the
// inference engine serves, bit for bit.
// Method: tiny random models, Gemma 3 with matrices on every grid and Gemma 4's
// structures, far beyond their sliding window; each instruction set that the
// machine has, prompts whole and in chunks.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/thread_pool.h"
#include "kernels/quant/ggml_types.h"
#include "services/finetuner/grid_checkpoint.h"
#include "services/finetuner/served_model.h"
#include "services/inference/engine.h"
#include "services/inference/gemma_weights.h"
#include "services/inference/tiny_model.h"
#include "services/model/gguf_reader.h"
#include "services/model/tensor_names.h"

namespace onegrid {
namespace {

using kernels::Isa;

constexpr int kTokens = 256;

std::vector<int32_t> Tokens(uint32_t seed) {
  std::vector<int32_t> tokens = {inference::kTinyBos};
  while (tokens.size() < kTokens) {
    seed = seed * 1664525u + 1013904223u;
    tokens.push_back(static_cast<int32_t>((seed >> 8) % inference::kTinyVocab));
  }
  return tokens;
}

class ServedArithmetic : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!kernels::IsaSupported(GetParam())) {
      GTEST_SKIP() << "no " << kernels::IsaName(GetParam()) << " here";
    }
  }

  void Write(const inference::TinyModelOptions& options) {
    const std::string path = testing::TempDir() + "/served_arithmetic.gguf";
    ASSERT_TRUE(inference::WriteTinyModel(path, options).ok());
    auto file = model::GgufFile::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
  }

  // Every logit of the engine, the tokens fed in chunks.
  std::vector<float> Serve(const std::vector<int32_t>& tokens, size_t chunk) {
    const auto weights = inference::LoadGemmaWeights(*file_, pool_);
    EXPECT_TRUE(weights.ok()) << weights.status();
    inference::EngineOptions options;
    options.numerics.isa = GetParam();
    options.max_sequences = 1;
    options.max_context = inference::kTinyContext;
    options.max_step_tokens = kTokens;
    const auto engine = inference::Engine::Create(*weights, options, pool_);
    EXPECT_TRUE(engine.ok()) << engine.status();
    std::vector<float> logits;
    for (size_t at = 0; at < tokens.size(); at += chunk) {
      const auto part = absl::MakeConstSpan(tokens).subspan(at, chunk);
      EXPECT_TRUE((*engine)->Forward({inference::Chunk{0, part, 0}}).ok());
      for (int row = 0; row < (*engine)->output_rows(); ++row) {
        const absl::Span<const float> out = (*engine)->Logits(row, 1);
        logits.insert(logits.end(), out.begin(), out.end());
      }
    }
    return logits;
  }

  // The trainer's logits are the engine's.
  void Compare();

  kernels::ThreadPool pool_{2};
  std::unique_ptr<model::GgufFile> file_;
};

void ServedArithmetic::Compare() {
  const auto checkpoint = finetuner::LoadGridCheckpoint(*file_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const finetuner::ServedModel trained(*checkpoint, checkpoint->linears, pool_);
  const std::vector<int32_t> tokens = Tokens(1);
  std::vector<float> want(kTokens * size_t{inference::kTinyVocab});
  trained.Logits(trained.Hidden(tokens), want.data());
  for (const size_t chunk : {256, 37, 1}) {
    const std::vector<float> got = Serve(tokens, chunk);
    ASSERT_EQ(got.size(), want.size());
    EXPECT_TRUE(std::equal(got.begin(), got.end(), want.begin()))
        << "chunks of " << chunk;
  }
}

TEST_P(ServedArithmetic, TrainerSeesTheLogitsThatAreServed) {
  Write(inference::MixedTinyModel());
  Compare();
}

TEST_P(ServedArithmetic, OfPerLayerInputsAndSharedKeys) {
  Write({.structure = inference::TinyStructure::kGemma4Edge, .types = {}});
  Compare();
}

TEST_P(ServedArithmetic, OfAHeadOfItsOwnAndATableOnInt4) {
  Write({.structure = inference::TinyStructure::kGemma4Edge,
         .types = {{model::kGgufPerLayerEmbedding, quant::GgmlType::kQ4_0}},
         .own_head = true});
  Compare();
}

TEST_P(ServedArithmetic, OfExpertsAndValuesThatAreKeys) {
  Write({.structure = inference::TinyStructure::kGemma4Experts, .types = {}});
  Compare();
}

INSTANTIATE_TEST_SUITE_P(AllIsas, ServedArithmetic,
                         testing::ValuesIn(kernels::kAllIsas),
                         [](const auto& info) {
                           return kernels::IsaName(info.param);
                         });

}  // namespace
}  // namespace onegrid
