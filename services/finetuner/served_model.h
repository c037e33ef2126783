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

  std::vector<float> Norm(const std::vector<float>& x, size_t norm) const;
  void AddNorm(const std::vector<float>& branch, size_t norm,
               std::vector<float>* x) const;
  // Of linear `linear` with the input quantized in `terms`; [m, out].
  std::vector<float> Linear(const reference::ServedInput& input,
                            size_t linear) const;
  void Multiply(const reference::ServedInput& input, const quant::GridMatrix& w,
                float* out) const;
  // Norm of every head, then rotation by position.
  void NormAndRotate(int64_t layer, int64_t heads, size_t norm,
                     const Stream& stream, std::vector<float>* x) const;
  std::vector<float> Attention(int64_t layer, const Stream& stream) const;
  std::vector<float> FeedForward(int64_t layer, const Stream& stream) const;

  const GridCheckpoint& checkpoint_;
  const absl::Span<const quant::GridMatrix> linears_;
  kernels::ThreadPool& pool_;
};

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_SERVED_MODEL_H_
