// Gemma 3 in its plainest form, for tests.
#ifndef SERVICES_INFERENCE_ENGINE_ORACLE_H_
#define SERVICES_INFERENCE_ENGINE_ORACLE_H_

#include <cstdint>
#include <vector>

#include "services/model/adapter.h"
#include "services/model/gemma_config.h"
#include "services/model/gguf_reader.h"

namespace onegrid::inference {

using Rows = std::vector<std::vector<float>>;  // [tokens][vocabulary]

// Logits after every token, in float over kernels/reference, from the file's
// dequantized tensors with the adapter, if there is one, merged into them.
Rows RunOracle(const model::GgufFile& file, const model::GemmaConfig& config,
               const std::vector<int32_t>& tokens,
               const model::Adapter* adapter = nullptr);

// BOS and random tokens of a tiny model, `count` in all.
std::vector<int32_t> RandomTokens(int count, uint32_t seed);

// The largest, of rows that are as many.
double MaxDifference(const Rows& a, const Rows& b);

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_ENGINE_ORACLE_H_
