// services/model says what the engine will hold without linking it: the same
// bytes, in every type and at lengths around pages and windows.
#include "services/model/serving_memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "kernels/base/thread_pool.h"
#include "kernels/quant/ggml_types.h"
#include "services/inference/engine.h"
#include "services/inference/gemma_weights.h"
#include "services/inference/kv_cache.h"
#include "services/inference/numerics.h"
#include "services/inference/tiny_model.h"
#include "services/model/gguf_reader.h"
#include "services/model/tensor_names.h"

namespace onegrid::inference {
namespace {

TEST(ServingMemoryTest, EqualsWhatTheEngineHolds) {
  EXPECT_EQ(EngineOptions{}.max_step_tokens, model::kServedStepTokens);
  kernels::ThreadPool pool(1);
  TinyModelOptions bf16;
  bf16.types["blk.1.ffn_up.weight"] = quant::GgmlType::kBF16;
  TinyModelOptions own_head;
  own_head.own_head = true;
  const std::string path =
      std::string(std::getenv("TEST_TMPDIR")) + "/tiny.gguf";
  for (const TinyModelOptions& options :
       {TinyModelOptions{}, MixedTinyModel(), bf16, own_head}) {
    ASSERT_TRUE(WriteTinyModel(path, options).ok());
    const auto file = model::GgufFile::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    const auto weights = LoadGemmaWeights(**file, pool);
    ASSERT_TRUE(weights.ok()) << weights.status();
    ASSERT_TRUE(model::CheckServedShape(weights->config).ok());

    int64_t bytes = 0;
    const auto add = [&](const std::string& name) {
      const model::GgufFile::Tensor& tensor = *(*file)->Find(name);
      bytes += model::PackedBytes(tensor.type, tensor.rows(), tensor.cols());
    };
    for (const auto& spec : model::GemmaLinears(weights->config)) {
      add(spec.gguf_name);
    }
    add(model::kGgufEmbedding);
    EXPECT_EQ(bytes, weights->bytes());

    for (const int context : {1, 64, 65, 300, 8192}) {
      const KvCache cache(weights->config, Numerics{}, /*slots=*/1, context,
                          model::kServedRollback);
      EXPECT_EQ(model::Int8KvBytes(weights->config, context),
                cache.bytes_max(model::kServedStepTokens))
          << context;
    }
  }
}

}  // namespace
}  // namespace onegrid::inference
