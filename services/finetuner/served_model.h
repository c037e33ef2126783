// A model on its grids as the inference service computes it with int8
// activations and cache, bit for bit (kernels/reference/served_ops.h).
//
// Training simulates serving with float products (ForwardOptions::as_served):
// the same rounding, in sums of another order, which is near enough to learn
// with. What is told about a finished model is told with this class: its
// logits are those that will be served. Free of LibTorch.
#ifndef SERVICES_FINETUNER_SERVED_MODEL_H_
#define SERVICES_FINETUNER_SERVED_MODEL_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/base/thread_pool.h"
#include "kernels/quant/grid.h"
#include "kernels/reference/served_ops.h"
#include "services/finetuner/grid_checkpoint.h"

namespace onegrid::finetuner {

// For probes and evaluations of some thousand tokens: scalar code. Not
// thread-safe.
class ServedModel {
 public:
  // `linears` replace the checkpoint's, in the same order. All must outlive
  // this.
  ServedModel(const GridCheckpoint& checkpoint,
              absl::Span<const quant::GridMatrix> linears,
              kernels::ThreadPool& pool);

  // Final norms [tokens, hidden] of one sequence from its start: the input of
  // the head.
  std::vector<float> Hidden(absl::Span<const int32_t> tokens) const;

  // Logits [rows, vocab] of rows of Hidden.
  void Logits(absl::Span<const float> hidden, float* logits) const;

  const model::GemmaConfig& config() const { return checkpoint_.config; }

 private:
  // One sequence on its way through the layers.
  struct Stream;

  // Of the rows of x, by a weight of GridCheckpoint::norms.
  std::vector<float> Norm(const std::vector<float>& x, int64_t norm) const;
  std::vector<float> NormBy(const std::vector<float>& x,
                            const std::vector<float>& weight) const;
  void AddNorm(const std::vector<float>& branch, int64_t norm,
               std::vector<float>* x) const;
  int64_t NormOf(int64_t layer, LayerNorm norm) const {
    return norms_.Of(layer, norm);
  }
  // Of linear `linear` with the input quantized; [m, out].
  std::vector<float> Linear(const reference::ServedInput& input,
                            int64_t linear) const;
  void Multiply(const reference::ServedInput& input, const quant::GridMatrix& w,
                float* out) const;
  // Norm of every head, then rotation by position.
  void NormAndRotate(int64_t layer, int64_t heads, int64_t norm,
                     const Stream& stream, std::vector<float>* x) const;
  // Puts the layer's keys and values, of the quantized input, into its cache.
  void AppendKeysAndValues(int64_t layer, const reference::ServedInput& input,
                           Stream* stream) const;
  std::vector<float> Attention(int64_t layer, Stream* stream) const;
  std::vector<float> FeedForward(int64_t layer, const Stream& stream) const;
  // Adds the experts' part to `branch`.
  void AddExperts(int64_t layer, const Stream& stream,
                  std::vector<float>* branch) const;
  // Sets the stream's per_layer from its x, the scaled embedding.
  void EmbedPerLayer(absl::Span<const int32_t> tokens, Stream* stream) const;
  void AddPerLayerInput(int64_t layer, Stream* stream) const;

  const GridCheckpoint& checkpoint_;
  const LinearLayout layout_;
  const NormLayout norms_;
  const absl::Span<const quant::GridMatrix> linears_;
  kernels::ThreadPool& pool_;
};

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_SERVED_MODEL_H_
