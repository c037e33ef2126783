#ifndef SERVICES_MODEL_SERVING_MEMORY_H_
#define SERVICES_MODEL_SERVING_MEMORY_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/quant/ggml_types.h"
#include "services/model/gemma_config.h"

// What the inference service holds of a model, without loading it. The service
// itself counts the same bytes (serving_memory_test of services/inference).
// Work space, which does not grow with the model's size, is not in it.
namespace onegrid::model {

// The service's defaults: tokens of one step, and tokens of guesses that are
// taken back at most.
inline constexpr int64_t kServedStepTokens = 512;
inline constexpr int64_t kServedRollback = 8;

// Bytes of a matrix [rows, cols] in memory: its blocks of a GGUF file, the rows
// filled up to a multiple of 16. cols must be whole blocks.
int64_t PackedBytes(quant::GgmlType type, int64_t rows, int64_t cols);

// The most bytes of the int8 keys and values of one sequence of
// `context_tokens`. For each layer, key/value head and token: the codes of key
// and value, an f32 scale of the key and one for each 32 values. Tokens come in
// pages of 64; a sliding layer holds its window, a step, the guesses and the
// page in which the window begins.
int64_t Int8KvBytes(const GemmaConfig& config, int64_t context_tokens);

// Unimplemented (UNSUPPORTED_SHAPE): attention takes heads of 32, 64, 128, 256
// or 512, and a matrix on a grid inputs in whole groups.
absl::Status CheckServedShape(const GemmaConfig& config);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_SERVING_MEMORY_H_
