// Each layer's own input (Gemma 4 E2B, E4B): looked up by token in a table that
// stays in the model's file, and projected from the embedding.
#ifndef SERVICES_INFERENCE_PER_LAYER_INPUTS_H_
#define SERVICES_INFERENCE_PER_LAYER_INPUTS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/base/thread_pool.h"
#include "services/inference/gemma_weights.h"
#include "services/inference/linear_input.h"
#include "services/inference/numerics.h"

namespace onegrid::inference {

// Rows [begin, begin + count) of a step.
struct RowRange {
  int64_t begin;
  int64_t count;
};

// Each row's result depends only on that row. Thread-compatible.
// (transformers modeling_gemma4.py, project_per_layer_inputs.)
class PerLayerInputs {
 public:
  // Work space for steps of at most `max_rows`. `weights`, which have a table,
  // and `pool` must outlive this.
  PerLayerInputs(const GemmaWeights& weights, const Numerics& numerics,
                 int64_t max_rows, kernels::ThreadPool& pool);

  // Takes the inputs of the rows of a step; x [rows, hidden]: the tokens'
  // scaled embeddings. DataLoss (CORRUPT_FILE; metadata tensor, token): the
  // table has a value that is not finite, which no loading has looked for.
  absl::Status Embed(absl::Span<const int32_t> tokens, const float* x);

  // Goes on with these rows, which are in order.
  void Keep(absl::Span<const RowRange> ranges);

  // branch [rows, hidden] = what the layer's input makes of x [rows, hidden],
  // before its norm.
  void Mix(int64_t layer, const float* x, float* branch);

 private:
  int64_t width() const { return weights_.config.per_layer_width; }
  int64_t layers() const { return weights_.config.layer_count(); }
  absl::Status LookUp(int32_t token);

  const GemmaWeights& weights_;
  const Numerics numerics_;
  kernels::ThreadPool& pool_;
  LinearInput input_;
  int64_t rows_ = 0;
  kernels::AlignedBuffer<float> looked_up_;  // [layers, width], one token's
  kernels::AlignedBuffer<float> projected_;  // [rows, layers, width]
  kernels::AlignedBuffer<float> inputs_;     // [layers, rows, width]
  kernels::AlignedBuffer<float> gate_;       // [rows, width]
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_PER_LAYER_INPUTS_H_
