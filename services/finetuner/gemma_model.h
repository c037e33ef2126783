// Gemma on its grid in LibTorch: frozen dequantized weights, optional LoRA.
#ifndef SERVICES_FINETUNER_GEMMA_MODEL_H_
#define SERVICES_FINETUNER_GEMMA_MODEL_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "services/finetuner/attention.h"
#include "services/finetuner/float_checkpoint.h"
#include "services/finetuner/grid_checkpoint.h"
#include "services/finetuner/grid_linear.h"
#include "services/finetuner/head_loss.h"
#include "services/finetuner/lora_adapter.h"
#include "services/finetuner/packing.h"

namespace onegrid::finetuner {

// Weights that do not depend on the compute type and are never changed; several
// models share them.
struct SharedWeights {
  model::GemmaConfig config;
  at::Tensor embedding;           // [vocab, hidden] float32, dequantized
  at::Tensor head;                // the same, or another if it is not tied
  std::vector<at::Tensor> norms;  // GemmaNorms order, float32
  RopeTable rope_local;
  RopeTable rope_global;
  // Of each layer's own input; undefined and null if there is none.
  std::function<at::Tensor(const at::Tensor& ids)> per_layer_rows;
  at::Tensor per_layer_projection;  // [layers * width, hidden] float32
};

// A sequence on its way through the layers.
struct LayerStream {
  at::Tensor x;          // [T, hidden] float32, the next layer's input
  at::Tensor per_layer;  // [layers, T, width] float32; undefined if none
  // Projections whose keys and values later layers attend to, by layer.
  std::map<int64_t, at::Tensor> keys_and_values;
};

// max_positions: length of the longest segment that will be run.
std::shared_ptr<const SharedWeights> MakeSharedWeights(
    const GridCheckpoint& checkpoint, int64_t max_positions);
std::shared_ptr<const SharedWeights> MakeSharedWeights(
    const FloatCheckpoint& checkpoint, int64_t max_positions);

// What a forward pass does beside computing.
struct ForwardOptions {
  // Not together with weight_gradients.
  const LoraAdapter* adapter = nullptr;
  // Gets the gradients of the linears' weights in the backward pass.
  WeightGradientSink* weight_gradients = nullptr;
  // Rounds activations and cached keys and values as the inference service
  // does; gradients pass straight through.
  bool as_served = false;
  // Source of dropout masks; nullptr: no dropout.
  at::Generator* dropout_random = nullptr;
  // Called with the input [T, in] of every linear group, in order of layers.
  std::function<void(int64_t layer, LinearGroup group, const at::Tensor& x)>
      observe;
};

// One set of linears in one compute type. Activations between linears are of
// the compute type; residual stream, norms and softmax are float32.
// Thread-compatible.
class GemmaModel {
 public:
  // Linears from `linears`, which is parallel to GemmaLinears; float weights
  // are [out, in] of any type.
  GemmaModel(std::shared_ptr<const SharedWeights> shared,
             absl::Span<const quant::GridMatrix> linears,
             at::ScalarType compute_type);
  GemmaModel(std::shared_ptr<const SharedWeights> shared,
             absl::Span<const at::Tensor> linears, at::ScalarType compute_type);
  // Attention specs are referred to by autograd graphs.
  GemmaModel(const GemmaModel&) = delete;
  GemmaModel& operator=(const GemmaModel&) = delete;

  // The residual stream after the last layer, [T, hidden] float32, before the
  // final norm. `layout` is MakeAttentionLayout(sequence) and must outlive the
  // backward pass.
  at::Tensor Forward(const PackedSequence& sequence,
                     const AttentionLayout& layout,
                     const ForwardOptions& options) const;

  // One layer of Forward. Layers run in order: some read what earlier ones left
  // in the stream.
  void ForwardLayer(int64_t layer, const AttentionLayout& layout,
                    const ForwardOptions& options, LayerStream* stream) const;

  // The stream before layer 0: embedding rows times sqrt(hidden).
  LayerStream Start(const PackedSequence& sequence,
                    bool as_served = false) const;

  // Final norm of the given rows of Forward's result, [rows, hidden] float32:
  // the input of the head. `as_served`: see ForwardOptions.
  at::Tensor FinalHidden(const at::Tensor& x, absl::Span<const int64_t> rows,
                         bool as_served = false) const;

  // Replaces one linear's weight, [out, in] of any type.
  void SetLinear(int64_t linear, const at::Tensor& weight);

  // One linear's weight, [out, in] of the compute type: a view.
  at::Tensor linear(int64_t linear) const;

  const model::GemmaConfig& config() const { return shared_->config; }
  const Head& head() const { return head_; }
  at::ScalarType compute_type() const { return compute_type_; }

 private:
  // `weight` gives each linear's, [out, in].
  GemmaModel(std::shared_ptr<const SharedWeights> shared,
             const std::function<at::Tensor(int64_t linear)>& weight,
             at::ScalarType compute_type);
  at::Tensor Linear(int64_t layer, LinearGroup group, const at::Tensor& x,
                    const ForwardOptions& options) const;
  const at::Tensor& Norm(int64_t layer, LayerNorm norm) const;
  // Each layer's own input, of embedding rows x and the tokens' table rows.
  at::Tensor PerLayerInputs(const at::Tensor& x, const at::Tensor& ids,
                            bool as_served) const;
  AttentionSpec MakeAttentionSpec(int64_t layer) const;
  // The parts of a layer, each [T, hidden] -> [T, hidden].
  at::Tensor AttentionBlock(int64_t layer, const at::Tensor& x,
                            const AttentionLayout& layout,
                            const ForwardOptions& options,
                            LayerStream* stream) const;
  at::Tensor MlpBlock(int64_t layer, const at::Tensor& x,
                      const ForwardOptions& options) const;
  at::Tensor Experts(int64_t layer, const at::Tensor& x, bool as_served) const;
  at::Tensor PerLayerBlock(int64_t layer, const at::Tensor& x,
                           const at::Tensor& input,
                           const ForwardOptions& options) const;

  std::shared_ptr<const SharedWeights> shared_;
  at::ScalarType compute_type_;
  LinearLayout layout_;
  NormLayout norm_layout_;
  // [layer * kGroupsPerLayer + group], undefined where a layer has none; then
  // the linears that are in no group.
  std::vector<at::Tensor> weights_;
  // By layer: places in weights_ of gate and up, and of down.
  struct ExpertPlaces {
    size_t gate_up = 0;
    size_t down = 0;
  };
  std::vector<ExpertPlaces> experts_;
  // Where each linear lies: index in weights_, first row there, rows.
  struct Place {
    size_t group;
    int64_t offset;
    int64_t rows;
  };
  std::vector<Place> places_;
  std::vector<AttentionSpec> attention_;  // By layer.
  Head head_;
};

// The labelled positions of a sequence and their targets.
struct Labels {
  std::vector<int64_t> rows;
  std::vector<int32_t> targets;
};
Labels LabelsOf(const PackedSequence& sequence);

// float32 values of the matrix, [rows, cols].
at::Tensor DequantizeTensor(const quant::GridMatrix& matrix);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_GEMMA_MODEL_H_
