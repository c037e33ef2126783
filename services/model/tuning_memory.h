#ifndef SERVICES_MODEL_TUNING_MEMORY_H_
#define SERVICES_MODEL_TUNING_MEMORY_H_

#include <cstdint>

#include "services/model/gemma_config.h"

namespace onegrid::model {

// How a model is tuned, as far as it decides about memory.
struct TuningShape {
  int64_t sequence_tokens = 1024;
  int64_t rank = 16;
  // Products in bfloat16: what the trainer chooses where the processor has
  // AVX-512 BF16. Else in float32.
  bool bf16 = false;
};

// About the most bytes that the finetuner holds resident while it tunes a model
// imported onto int4 in its default mode, qlora_qat, whose polish needs most:
// the adapted model as the teacher and the model under training, each with its
// matrices in the products' type, beside the codes before and now. Sequences
// count as one example each, for which attention needs most. A teacher that is
// named, or float weights for a plan, come on top.
//
// Measured with Gemma 3 270M: 92 to 97 % of it (tests/evidence/tuning_memory).
int64_t TuningBytes(const GemmaConfig& config, const TuningShape& shape);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_TUNING_MEMORY_H_
