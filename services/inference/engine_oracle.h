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

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_ENGINE_ORACLE_H_
