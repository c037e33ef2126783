#ifndef SERVICES_INFERENCE_ENGINE_TESTING_H_
#define SERVICES_INFERENCE_ENGINE_TESTING_H_

// What tests of an engine on a tiny model have in common.

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/base/thread_pool.h"
#include "services/inference/engine.h"
#include "services/inference/engine_oracle.h"
#include "services/inference/gemma_weights.h"
#include "services/inference/tiny_model.h"
#include "services/model/gguf_reader.h"

namespace onegrid::inference {

// Most tokens of a step.
inline constexpr int kStep = 64;

struct TinyWeights {
  std::unique_ptr<model::GgufFile> file;
  GemmaWeights weights;
};

// Writes such a model and loads it.
TinyWeights LoadTiny(const TinyModelOptions& tiny, kernels::ThreadPool& pool);

// Adds the logits of all output rows of the last step.
void AppendRows(Engine& engine, Rows* rows);

// Logits after every token, the tokens fed in chunks of at most `chunk`.
Rows RunRows(Engine& engine, int slot, const std::vector<int32_t>& tokens,
             int chunk);

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_ENGINE_TESTING_H_
